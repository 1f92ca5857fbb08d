"""Read all weights of a file or folder, quantised ones as they are, and load them into a module."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from .errors import CheckpointError
from .gguf_file import MAGIC, read_gguf, read_gguf_header
from .header import read_opening
from .mmap import MapFile, map_read_only
from .quantised import GGUF, QuantisedWeight, Weight, find_quantised
from .safetensors_file import read_header, read_tensors
from .shards import files_of

T = TypeVar("T")
GGUF_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
"""GGUF's types that are plain dtypes."""


def read_weights(path: Path, prefix: str = "", map_file: MapFile = map_read_only,
                 ) -> tuple[dict[str, Weight], dict[str, str]]:
    """Return the weights under the file's own names, memory-mapped, and its metadata.

    With a prefix, only the weights behind it, under their names without it. `map_file` is the host's way to map a file.
    Raises CheckpointError for a file that is missing, cut short or something else.
    """
    weights: dict[str, Weight] = {}
    metadata: dict[str, str] = {}
    for file in files_of(path):
        if read_opening(file)[0].startswith(MAGIC):
            weights |= _behind(prefix, _gguf_weights(file, map_file))
            metadata |= read_gguf_header(file).metadata
            continue
        header = read_header(file)
        try:
            weights |= find_quantised(_behind(prefix, read_tensors(file, map_file)), header.metadata, prefix)
        except CheckpointError as error:  # it knows the tensors alone
            raise CheckpointError(f"{file.name}: {error}") from error
        metadata |= header.metadata
    return weights, metadata


def _behind(prefix: str, found: Mapping[str, T]) -> dict[str, T]:
    """Return the entries whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _gguf_weights(file: Path, map_file: MapFile) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for name, tensor in read_gguf(file, map_file).items():
        dtype = GGUF_DTYPES.get(tensor.type)
        if dtype is not None:
            weights[name] = tensor.data.view(dtype).view(tensor.shape)
        else:
            weights[name] = QuantisedWeight(GGUF, tensor.data.view(tensor.shape[0], -1), tensor.shape,
                                            options={"type": tensor.type})
    return weights


def load_exactly(file: str, what: str, module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Assign the tensors to the module. Raises CheckpointError when a name or a shape does not fit."""
    check_weights(file, what, module.state_dict(), tensors)
    module.load_state_dict(tensors, assign=True)


def check_weights(file: str, what: str, wanted: Mapping[str, torch.Tensor], found: Mapping[str, Weight]) -> None:
    """Raise CheckpointError unless the weights found have exactly the wanted names and shapes."""
    check_keys(file, what, wanted, found)
    for name, weight in found.items():
        if tuple(weight.shape) != tuple(wanted[name].shape):
            raise CheckpointError(f"{file} is not a usable {what}: {name} is {tuple(weight.shape)} and should be "
                                  f"{tuple(wanted[name].shape)}. Fetch it again, or choose another.")


def check_keys(file: str, what: str, expected: Collection[str], found: Collection[str]) -> None:
    """Raise CheckpointError unless `found` holds exactly the expected names. `what`: the model, for the message."""
    faults = []
    for problem, names in (("missing", set(expected) - set(found)), ("not known", set(found) - set(expected))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            faults.append(f"{min(names)}{more} {problem}")
    if faults:
        raise CheckpointError(f"{file} is not a whole {what}: {'; '.join(faults)}. Fetch it again, or choose another.")
