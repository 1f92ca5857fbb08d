"""What weights say of themselves before a tensor is read, and files that are no weights at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError

MIN_BYTES = 8
"""Bytes that every format needs before anything can be told."""


@dataclass(frozen=True)
class Header:
    """Names, dtypes and shapes of the tensors in a file or a folder of shards, and the free-form metadata.

    Dtypes carry the format's own names: F16, BF16, F8_E4M3, ... in safetensors; F16, Q8_0, Q4_K, ... in GGUF. Shapes
    are in torch's order.
    """

    path: Path
    dtypes: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


@dataclass(frozen=True)
class FileHeader(Header):
    """The header of one file, which also says where each tensor's first byte is, counted from the file's start."""

    offsets: dict[str, int]


def opening(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file, at most 64, and its size in bytes.

    Raises CheckpointError for a file that is missing, unreadable, empty, or what a failed download leaves behind: a
    Git LFS pointer (github.com/git-lfs/git-lfs, docs/spec.md) or a web page. PyTorch's own files (pickles, in a zip
    since PyTorch 1.6: torch/serialization.py) are refused too: opening one can run code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not there. Check the name, or choose another file.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror}). Check its permissions, or choose "
                              "another file.") from error
    if size == 0:
        raise CheckpointError(f"{path.name} is empty (0 bytes): its download failed. Fetch it again.")
    if start.startswith(b"version "):
        raise CheckpointError(f"{path.name} is a Git LFS pointer, not the weights. Run `git lfs pull` where it "
                              "came from, or download the file itself.")
    # A safetensors length may happen to start like a tag, but its upper bytes are zero.
    if start.lstrip().startswith(b"<") and b"\0" not in start[:MIN_BYTES]:
        raise CheckpointError(f"{path.name} is a web page, not weights. Download the file itself.")
    if start.startswith((b"PK\x03\x04", b"\x80\x02\x8a\n")):
        raise CheckpointError(f"{path.name} is a PyTorch pickle, which can run code when it is opened. Choose the "
                              "same weights as .safetensors or .gguf.")
    return start, size
