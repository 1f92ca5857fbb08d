"""Reading a .safetensors file: its header without its tensors, and its tensors memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError
from .header import MIN_BYTES, FileHeader, opening

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit (safetensors, safetensors/src/tensor.rs)."""


def read_header(path: Path) -> FileHeader:
    """Read and check the header of a .safetensors file.

    Format: 8 bytes of little-endian length, then that many bytes of JSON, then the tensors' bytes
    (github.com/huggingface/safetensors, "Format"). Raises CheckpointError for a file that is missing, empty, cut
    short or something else.
    """
    start, size = opening(path)
    length = int.from_bytes(start[:MIN_BYTES], "little")
    if len(start) < MIN_BYTES or length > min(MAX_HEADER, size - MIN_BYTES):
        raise CheckpointError(f"{path.name} is not a safetensors file, or it is cut short ({size:,} bytes). "
                              "Fetch it again.")
    with path.open("rb") as file:
        file.seek(MIN_BYTES)
        text = file.read(length)
    data = MIN_BYTES + length
    try:
        header = json.loads(text)
        metadata = {key: str(value) for key, value in header.pop("__metadata__", {}).items()}
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        dtypes = {name: str(entry["dtype"]) for name, entry in header.items()}
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        offsets = {name: data + int(entry["data_offsets"][0]) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError,
            RecursionError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file: its header cannot be read "
                              f"({error}).") from error
    if data + end > size:
        raise CheckpointError(f"{path.name} is cut short: it should hold {data + end:,} bytes and holds "
                              f"{size:,}. Fetch it again.")
    return FileHeader(path, dtypes, shapes, metadata, offsets)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors, memory-mapped: their pages are read when they are first used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Fetch it again.") from error
