"""Reading a .safetensors file: its header without its tensors, here or on a server, and its tensors memory-mapped.

The JSON in a .safetensors header, read piece by piece: what a hostile one costs in memory has a bound.

Format: github.com/huggingface/safetensors, safetensors/src/tensor.rs (`HashMetadata`, `TensorInfo`). A parser of all
JSON makes twenty bytes of Python objects of one byte of `[],[],[],`, so each entry is bounded before it is parsed.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, not_mapped, quoted
from .header import MIN_BYTES, OPENING_BYTES, FileHeader, check_opening, opening

if TYPE_CHECKING:
    Text = bytes | mmap.mmap
    import torch

MAX_TENSORS = 16_384
"""In one file. A Wan expert has 1,100 tensors, quantised 2,500; a LoRA with every part of every module 4,000."""
MAX_NAME, MAX_ENTRY, MAX_DIMS = 1_000, 1_000, 16
"""Bytes of a tensor's name; bytes of its dtype, shape and offsets; dimensions."""
MAX_NOTES, MAX_METADATA = 10_000, 4_000_000
"""Names in the metadata, of which trainers write a hundred; bytes of it that are kept. Values beyond, such as the count
of every word in a trainer's captions, are passed over."""
SPACE = re.compile(rb"[ \t\n\r]*")
PIECE = re.compile(rb'[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*){0,1000}')
"""A stretch of a string. Bounded, for the engine keeps a record of every repetition of a group."""
DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,19}")
PAIRS = json.JSONDecoder(object_pairs_hook=list)
"""Objects as lists of pairs, which show a name that comes twice."""


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor: dtype, shape, and where its bytes begin and end after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Cursor:
    """A place in the text, moving on."""

    def __init__(self, text: Text, at: int) -> None:
        self.text = text
        self.at = at

    def take(self, wanted: bytes) -> bytes:
        """Pass over white space and one of the wanted bytes, which is returned. Raises ValueError for any other."""
        start = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
        found = self.text[start:start + 1]
        if not found or found not in wanted:
            raise ValueError(f"{wanted.decode()!r} expected at byte {start:,} of it")
        self.at = start + 1
        return found

    def string(self, limit: int) -> str | None:
        """Pass over a string, which is returned; None when it has more than `limit` bytes."""
        self.take(b'"')
        start = self.at
        while self.text[self.at:self.at + 1] != b'"':
            end = PIECE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if end == self.at:
                raise ValueError(f"a string does not end at byte {end:,} of it")
            self.at = end
        self.at += 1
        if self.at - start > limit:
            return None
        raw = self.text[start:self.at - 1].decode("utf-8")
        found = json.loads(f'"{raw}"') if "\\" in raw else raw
        found.encode("utf-8")  # an escape can make half a character, which can be neither shown nor stored
        return found

    def entry(self) -> Entry:
        """Pass over an object that describes a tensor."""
        self.take(b"{")
        end = self.text.find(b"}", self.at, self.at + MAX_ENTRY) + 1
        if end == 0:
            raise ValueError(f"an entry does not end at byte {self.at:,} of it")
        described = self.text[self.at - 1:end].decode("ascii")
        pairs = PAIRS.decode(described)
        self.at = end
        fields = dict(pairs)
        if len(pairs) != 3 or fields.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError("an entry is not of dtype, shape and data_offsets")
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not (isinstance(dtype, str) and DTYPE.fullmatch(dtype)
                and isinstance(shape, list) and isinstance(offsets, list)):
            raise ValueError("an entry is not of dtype, shape and data_offsets")
        if len(shape) > MAX_DIMS or len(offsets) != 2:
            raise ValueError(f"an entry has {len(shape)} dimensions and {len(offsets)} offsets")
        if "-" in described or not all(type(number) is int and number < 2**63 for number in (*shape, *offsets)):
            raise ValueError("an entry has sizes that are no sizes")
        return Entry(dtype, tuple(shape), *offsets)

    def members(self) -> Iterator[None]:
        """Pass over an object, with a stop before each name: whoever iterates passes over name, colon and value."""
        self.take(b"{")
        if self.take(b'"}') == b"}":
            return
        self.at -= 1
        while True:
            yield
            if self.take(b",}") == b"}":
                return

    def metadata(self) -> dict[str, str]:
        """Pass over an object of strings, of which those are returned that fit into MAX_METADATA."""
        found: dict[str, str] = {}
        kept = 0
        for number, _ in enumerate(self.members()):
            if number == MAX_NOTES:
                raise ValueError(f"its metadata has more than {MAX_NOTES:,} names")
            begin = self.at
            key = self.string(MAX_NAME)
            self.take(b":")
            value = self.string(MAX_METADATA - kept)
            if key is None or value is None:
                continue
            if key in found:
                raise ValueError("the metadata has a name twice")
            found[key] = value
            kept += self.at - begin
        return found


def read_json(text: Text, start: int = 0) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors' entries and the metadata in the bytes from `start` to the end.

    Raises ValueError or RecursionError for what is not a safetensors header: other JSON, names that come twice, text
    that is not UTF-8, shapes and offsets that are no whole numbers from 0 on, or more than the bounds above.
    """
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] | None = None
    cursor = Cursor(text, start)
    for _ in cursor.members():
        name = cursor.string(MAX_NAME)
        cursor.take(b":")
        if name == "__metadata__" and metadata is None:
            metadata = cursor.metadata()
        elif name is None or name == "__metadata__" or name in entries:
            raise ValueError("a tensor's name is too long or comes twice")
        elif len(entries) == MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        else:
            entries[name] = cursor.entry()
    if SPACE.match(text, cursor.at).end() != len(text):  # type: ignore[union-attr]
        raise ValueError(f"it goes on after its end, byte {cursor.at:,}")
    return entries, metadata or {}

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

    from .mmap import DTYPES, mapped_tensors

    try:
        if os.name == "nt" and set((header := read_header(path)).dtypes.values()) <= DTYPES.keys():
            return mapped_tensors(header)
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Fetch it again.") from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise not_mapped(path.name, error) from error
