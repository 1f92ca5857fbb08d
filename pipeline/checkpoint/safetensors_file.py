"""Reading a .safetensors file: its header without its tensors, and its tensors memory-mapped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit (safetensors, safetensors/src/tensor.rs)."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself: each tensor's dtype and shape, and the free-form metadata."""

    path: Path
    dtypes: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of a .safetensors file.

    Format: 8 bytes of little-endian length, then that many bytes of JSON, then the tensors' bytes
    (github.com/huggingface/safetensors, "Format"). Raises CheckpointError for a file that is missing, empty, cut
    short or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Check the name, or choose another file.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path.name} is empty (0 bytes): its download failed. Fetch it again.")
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise CheckpointError(f"{path.name} is a Git LFS pointer, not the weights. Run `git lfs pull` where it "
                                  "came from, or download the file itself.")
        if start.lstrip().startswith(b"<"):
            raise CheckpointError(f"{path.name} is a web page, not weights. Download the file itself.")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER, size - 8):
            raise CheckpointError(f"{path.name} is not a safetensors file, or it is cut short ({size:,} bytes). "
                                  "Fetch it again.")
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
            dtypes = {name: entry["dtype"] for name, entry in header.items()}
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise CheckpointError(f"{path.name} is not a safetensors file: its header cannot be read "
                                  f"({error}).") from error
    if 8 + length + end > size:
        raise CheckpointError(f"{path.name} is cut short: it should hold {8 + length + end:,} bytes and holds "
                              f"{size:,}. Fetch it again.")
    return Header(path, dtypes, shapes, metadata)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors, memory-mapped: their pages are read when they are first used."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Fetch it again.") from error
