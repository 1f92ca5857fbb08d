"""Reading a .safetensors file: its header without its tensors, here or on a server, and its tensors memory-mapped."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, not_mapped, quoted
from .header import MIN_BYTES, OPENING_BYTES, FileHeader, check_opening, opening
from .safetensors_json import Entry, read_json

if TYPE_CHECKING:
    import torch

    from .safetensors_json import Text

MAX_HEADER = 100_000_000
"""Bytes; the format's own limit (safetensors, safetensors/src/tensor.rs)."""
MAX_REMOTE_HEADER = 16 * 2**20
"""Bytes. The names, dtypes and shapes of a LoRA take 0.2 to 0.6 MB; the rest is a trainer's notes, a few MB at most.

A header on a server is held in memory, where one of a file is mapped: together with what is made of it, it stays under
64 MB whatever is in it.
"""
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
"""Of one element (safetensors/src/tensor.rs, `Dtype::bitsize`). A dtype newer than this table is not held to a size."""


def _check_span(name: str, entry: Entry) -> None:
    """Raise ValueError unless the tensor's bytes are as many as its dtype and shape need."""
    bits = BITS.get(entry.dtype)
    if bits is None:
        return
    for size in entry.shape:
        bits *= size
        if bits >= 2**64:
            raise ValueError(f"{quoted(name)} is larger than any file")
    if bits != 8 * (entry.end - entry.begin):
        raise ValueError(f"{quoted(name)} of {entry.dtype} {list(entry.shape)} cannot be of "
                         f"{entry.end - entry.begin:,} bytes")


def _check_layout(entries: Mapping[str, Entry]) -> int:
    """The bytes of all tensors. Raises ValueError when they overlap, leave holes, or are not of their dtype's size."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end or entry.end < entry.begin:
            raise ValueError(f"{quoted(name)} is at bytes {entry.begin:,} to {entry.end:,}, where {end:,} is next")
        _check_span(name, entry)
        end = entry.end
    return end


def _header_length(name: str, start: bytes, size: int | None, limit: int) -> int:
    length = int.from_bytes(start[:MIN_BYTES], "little")
    held = "" if size is None else f" ({size:,} bytes)"
    if len(start) < MIN_BYTES or length > min(MAX_HEADER, MAX_HEADER if size is None else size - MIN_BYTES):
        raise CheckpointError(f"{name} is not a safetensors file, or it is cut short{held}. Fetch it again.")
    if length > limit:
        raise CheckpointError(f"{name} has a header of {length:,} bytes, and {limit:,} is the most that is read from a "
                              "server. Download the file, and choose it from its folder.")
    return length


def _parse(path: Path, text: Text, begin: int, size: int | None) -> FileHeader:
    """The header whose JSON is the text from `begin` on, of a file that holds `size` bytes where that is known."""
    try:
        entries, metadata = read_json(text, begin)
        data = MIN_BYTES + len(text) - begin
        whole = data + _check_layout(entries)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file, or it is damaged: its header cannot be read "
                              f"({error}). Fetch it again.") from error
    if size is not None and size < whole:
        raise CheckpointError(f"{path.name} is cut short: it should hold {whole:,} bytes and holds {size:,}. "
                              "Fetch it again.")
    if size is not None and size > whole:
        raise CheckpointError(f"{path.name} is damaged: it should hold {whole:,} bytes and holds {size:,}. "
                              "Fetch it again.")
    return FileHeader(
        path=path,
        dtypes={name: entry.dtype for name, entry in entries.items()},
        shapes={name: entry.shape for name, entry in entries.items()},
        metadata=metadata,
        offsets={name: data + entry.begin for name, entry in entries.items()},
        whole=whole,
    )


def read_header(path: Path) -> FileHeader:
    """Read and check the header of a .safetensors file.

    Format: 8 bytes of little-endian length, then that many bytes of JSON, then the tensors' bytes, without overlap or
    hole (github.com/huggingface/safetensors, "Format"). Raises CheckpointError for a file that is missing, empty, cut
    short, damaged or something else.
    """
    start, size = opening(path)
    length = _header_length(path.name, start, size, MAX_HEADER)
    with path.open("rb") as file, mmap.mmap(file.fileno(), MIN_BYTES + length, access=mmap.ACCESS_READ) as text:
        return _parse(path, text, MIN_BYTES, size)


def read_remote_header(name: str, read: Callable[[int, int], bytes], size: int | None) -> FileHeader:
    """Read and check the header of a .safetensors file that is elsewhere, from its first bytes alone.

    `name` is what messages call it, and the name of the header's path, which is not there. `read` is given an offset
    and a count and returns those bytes, fewer only at the file's end; it is called for the first 64 and for the JSON.
    `size` is that of the whole file, None where the server does not say; `FileHeader.whole` is what it has to be.
    Raises CheckpointError as `read_header` does, and for a header of more than 16 MiB.
    """
    start = read(0, OPENING_BYTES)
    check_opening(name, start)
    length = _header_length(name, start, size, MAX_REMOTE_HEADER)
    text = read(MIN_BYTES, length)
    if len(text) != length:
        raise CheckpointError(f"{name} is cut short: {length:,} bytes of header were asked for and {len(text):,} came. "
                              "Fetch it again.")
    return _parse(Path(name), text, 0, size)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors, memory-mapped: their pages are read when they are first used. Not to be written to.

    Raises CheckpointError for a damaged file, and when the system does not map it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .read_only_map import DTYPES, mapped_tensors

    try:
        if os.name == "nt" and set((header := read_header(path)).dtypes.values()) <= DTYPES.keys():
            return mapped_tensors(header)
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Fetch it again.") from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise not_mapped(path.name, error) from error
