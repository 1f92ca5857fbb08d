"""Keys of segments: a hash of all that determines one, and of the key of the segment before it.

A segment on the disk is taken when its key is the one that this run would give it, and never otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch

from ..models.layers import stored_tensors

FORMAT = 3
"""Of the files of a segment, and of how its frames are made; a change of it gives every segment a new key."""
SAMPLES, SAMPLE_BYTES = 64, 4096
"""Places of a file that are read for its fingerprint, and bytes at each."""
ROWS = 16
"""Rows of a matrix that are read for its model's fingerprint."""
DEPTH = 8
"""Functions within functions that are named."""


def key_of(*parts: Any) -> str:
    """Return the key of values that JSON can hold, as 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:16]


def chain_of_keys(common: Mapping[str, Any], segments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the key of each segment.

    common: what all segments share. segments: what each has of its own. A change of one gives all that follow new keys.
    """
    keys = [key_of(common)]
    for own in segments:
        keys.append(key_of(keys[-1], own))
    return keys[1:]


def fingerprint_of_file(path: Path) -> str:
    """Return a hash of a file's size and of 64 places in it: a file of gigabytes is told from another in no time."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in range(SAMPLES):
            file.seek(place * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
            found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()


def fingerprint_of_module(module: torch.nn.Module) -> str:
    """Return a hash of a model's names, shapes and dtypes, and of the stored bytes of its vectors and of some rows of
    its matrices: so little that weights on a device or in a mapped file stay where they are."""
    found = hashlib.sha256()
    for name, tensor in stored_tensors(module):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        if tensor.numel():
            found.update(_some_rows(tensor.detach()).cpu().numpy().tobytes())
    return found.hexdigest()


def _some_rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return bytes (N,): a vector's, or those of ROWS rows of a larger tensor, from the first to the last."""
    rows = tensor.reshape(1 if tensor.ndim < 2 else len(tensor), -1).view(torch.uint8)
    places = torch.linspace(0, len(rows) - 1, min(ROWS, len(rows)), device=rows.device).long()
    return rows[places].flatten()


def names_of_function(function: Callable[..., Any] | str | None, depth: int = DEPTH) -> list[str]:
    """Return what tells a function from others: its name, and those of the functions and texts that it was made with,
    such as the one that it calls or the name of a mode. Numbers are left out, for they may count the calls."""
    if function is None or isinstance(function, str):
        return [function or ""]
    if isinstance(function, partial):
        made_with = [function.func, *function.args, *function.keywords.values()]
    elif isinstance(function, FunctionType):
        made_with = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    else:
        made_with = []
    kind = function if hasattr(function, "__qualname__") else type(function)
    named = [one for one in made_with if depth and (callable(one) or isinstance(one, str))]
    return [f"{kind.__module__}.{kind.__qualname__}",
            *(name for one in named for name in names_of_function(one, depth - 1))]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a name that was never given a value
        return False


def fingerprint_of_tensor(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's shape and values, as float32."""
    values = tensor.detach().float().cpu().contiguous()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()
