"""All weights of a file or folder, whatever its layout, packed ones as they are."""

from __future__ import annotations

from pathlib import Path

import torch

from .folder import weight_files
from .gguf_file import MAGIC, read_gguf, read_gguf_header
from .header import opening
from .quantised import GGUF, QuantisedWeight, Weight, find_quantised
from .safetensors_file import read_header, read_tensors

GGUF_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
"""GGUF's types that are ordinary dtypes."""


def read_weights(path: Path) -> tuple[dict[str, Weight], dict[str, str]]:
    """Weights under the file's own names, memory-mapped, and its metadata.

    Raises CheckpointError for a file that is missing, cut short or something else.
    """
    weights: dict[str, Weight] = {}
    metadata: dict[str, str] = {}
    for file in weight_files(path) if path.is_dir() else [path]:
        if opening(file)[0].startswith(MAGIC):
            weights |= _gguf_weights(file)
            metadata |= read_gguf_header(file).metadata
            continue
        header = read_header(file)
        weights |= find_quantised(read_tensors(file), header.metadata)
        metadata |= header.metadata
    return weights, metadata


def _gguf_weights(file: Path) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for name, tensor in read_gguf(file).items():
        dtype = GGUF_DTYPES.get(tensor.type)
        if dtype is not None:
            weights[name] = tensor.data.view(dtype).view(tensor.shape)
        else:
            weights[name] = QuantisedWeight(GGUF, tensor.data.view(tensor.shape[0], -1), tensor.shape,
                                            options={"type": tensor.type})
    return weights
