"""Headers of weight files, and the check that a file is a weight file at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError, PickleError

MIN_BYTES = 8
"""Least bytes of any format."""
OPENING_BYTES = 64
"""Bytes at the start of a file that are enough to recognise its format."""


@dataclass(frozen=True)
class Header:
    """Names, dtypes and shapes of the tensors in a file or a folder of shards, and its free-form metadata.

    Dtypes carry the format's own names: F16, BF16, F8_E4M3, ... in safetensors; F16, Q8_0, Q4_K, ... in GGUF. Shapes
    are in torch's order.
    """

    path: Path
    dtypes: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


@dataclass(frozen=True)
class FileHeader(Header):
    """The header of one file, with the offset of each tensor's first byte from the file's start.

    `whole` is the file's size in bytes according to its header; None for GGUF, whose header does not say.
    """

    offsets: dict[str, int]
    whole: int | None = None


def check_opening(name: str, start: bytes) -> None:
    """Raise CheckpointError when a file's first 64 bytes are not those of a weight file.

    A failed download leaves nothing, a Git LFS pointer (github.com/git-lfs/git-lfs, docs/spec.md), a web page or a
    server's answer in JSON. PyTorch's own files (pickles, in a zip since PyTorch 1.6: torch/serialization.py) are
    refused because opening one can run code. The content decides, not the suffix.
    """
    if not start:
        raise CheckpointError(f"{name} is empty (0 bytes): its download failed. Fetch it again.")
    if start.startswith(b"version "):
        raise CheckpointError(f"{name} is a Git LFS pointer, not the weights. Run `git lfs pull` where it "
                              "came from, or download the file itself.")
    # A safetensors length may happen to start like a tag, but its upper bytes are zero.
    is_text = b"\0" not in start[:MIN_BYTES]
    if start.lstrip().startswith(b"<") and is_text:
        raise CheckpointError(f"{name} is a web page, not weights. Download the file itself.")
    if start.lstrip().startswith(b"{") and is_text:
        raise CheckpointError(f"{name} is a server's answer in JSON, not weights. Download the file itself.")
    pickled = start[0] == 0x80 and start[1:2] in b"\2\3\4\5" and start[MIN_BYTES:MIN_BYTES + 1] != b"{"
    if start.startswith(b"PK\x03\x04") or pickled:
        raise PickleError(f"{name} is a PyTorch pickle, which can run code when it is opened, or a zip archive. Use "
                          "the same weights as .safetensors or .gguf.")


def read_opening(path: Path) -> tuple[bytes, int]:
    """Return a file's first 64 bytes, fewer when it is shorter, and its size in bytes.

    Raises CheckpointError for a file that is missing or unreadable, and as `check_opening` does.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Check the name, or choose another file.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(OPENING_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror}). Check its permissions, or choose "
                              "another file.") from error
    check_opening(path.name, start)
    return start, size
