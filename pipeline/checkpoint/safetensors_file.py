"""Read a .safetensors file: its header, from a disk or a server, and its tensors, memory-mapped.

Format: github.com/huggingface/safetensors, safetensors/src/tensor.rs (`HashMetadata`, `TensorInfo`). The header's JSON
is parsed piece by piece, so that an untrusted one can only use a bounded amount of memory: a general JSON parser makes
twenty bytes of Python objects of one byte of `[],[],[],`.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import CheckpointError, mapping_error, quoted
from .header import MIN_BYTES, OPENING_BYTES, FileHeader, check_opening, read_opening

if TYPE_CHECKING:
    import torch

    from .mmap import MapFile

    Text = bytes | mmap.mmap

MAX_TENSORS = 16_384
"""Most tensors in a file. A Wan expert has 1,100, quantised 2,500; a LoRA with every part of every module 4,000."""
MAX_NAME, MAX_ENTRY, MAX_DIMS = 1_000, 1_000, 16
"""Most bytes of a tensor's name, and of its dtype, shape and offsets; most dimensions."""
MAX_NOTES, MAX_METADATA = 10_000, 4_000_000
"""Most names in the metadata (trainers write a hundred), and most bytes of it that are kept; longer values, such as
the count of every word in a trainer's captions, are skipped."""
MAX_OTHERS = 500_000
"""Most bytes of values in the metadata that are no strings."""
MAX_HEADER = 100_000_000
"""Most bytes of a header, by the format (safetensors, safetensors/src/tensor.rs)."""
MAX_REMOTE_HEADER = 16 * 2**20
"""Most bytes of a header on a server. A LoRA's names, dtypes and shapes take 0.2 to 0.6 MB, a trainer's notes a few MB.

It is held in memory, where that of a local file is mapped; with the objects made of it, it stays under 64 MB.
"""
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
"""Bits of one element (safetensors/src/tensor.rs, `Dtype::bitsize`); the size of a newer dtype is not checked."""
SPACE = re.compile(rb"[ \t\n\r]*")
PIECE = re.compile(rb'[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*){0,1000}')
"""A piece of a string; bounded, because the regex engine records every repetition of a group."""
OPENING = re.compile(rb"[\[{]{1,1000}")
SCALAR = re.compile(rb"-?[0-9][0-9.eE+-]{0,40}|true|false|null|NaN|-?Infinity")
DTYPE = re.compile(r"[A-Z][A-Z0-9_]{0,19}")
PAIRS = json.JSONDecoder(object_pairs_hook=list)
"""Decodes objects as lists of pairs, which show a repeated name."""


def read_header(path: Path) -> FileHeader:
    """Read and check the header of a .safetensors file.

    Format: 8 bytes of little-endian length, then that many bytes of JSON, then the tensors' bytes, without overlap or
    hole (github.com/huggingface/safetensors, "Format"). Raises CheckpointError for a file that is missing, empty, cut
    short, damaged or something else.
    """
    start, size = read_opening(path)
    length = _header_length(path.name, start, size, MAX_HEADER)
    with path.open("rb") as file, mmap.mmap(file.fileno(), MIN_BYTES + length, access=mmap.ACCESS_READ) as text:
        return _parse(path, text, MIN_BYTES, size)


def read_remote_header(name: str, read: Callable[[int, int], bytes], size: int | None) -> FileHeader:
    """Read and check the header of a .safetensors file on a server, from its first bytes alone.

    `name` names it in messages and becomes the header's path. read(offset, count) returns those bytes, fewer only at
    the file's end; it is called for the first 64 bytes and for the JSON. `size` is the file's, in bytes, None when the
    server does not say; `FileHeader.whole` says what it must be. Raises CheckpointError as `read_header` does, and for
    a header of more than 16 MiB.
    """
    start = read(0, OPENING_BYTES)
    check_opening(name, start)
    length = _header_length(name, start, size, MAX_REMOTE_HEADER)
    text = read(MIN_BYTES, length)
    if len(text) != length:
        raise CheckpointError(f"{name} is cut short: {length:,} bytes of header were asked for and {len(text):,} came. "
                              "Fetch it again.")
    return _parse(Path(name), text, 0, size)


def read_tensors(path: Path, map_file: MapFile | None = None) -> dict[str, torch.Tensor]:
    """Map the file's tensors into memory; the disk is read when a page is first used. Never write to them.

    `map_file` is the host's way to map it, if it has one. Raises CheckpointError for a damaged file, and when the
    system does not map it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .mmap import DTYPES, map_read_only, mapped_tensors

    try:
        header = read_header(path)
        if set(header.dtypes.values()) <= DTYPES.keys():
            return mapped_tensors(header, map_file or map_read_only)
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise CheckpointError(f"{path.name} is damaged ({error}). Fetch it again.") from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise mapping_error(path.name, error) from error


def _header_length(name: str, start: bytes, size: int | None, limit: int) -> int:
    """Return the bytes of JSON from the first 8 bytes. Raises CheckpointError when they exceed the file or `limit`."""
    length = int.from_bytes(start[:MIN_BYTES], "little")
    held = "" if size is None else f" ({size:,} bytes)"
    if len(start) < MIN_BYTES or length > min(MAX_HEADER, MAX_HEADER if size is None else size - MIN_BYTES):
        raise CheckpointError(f"{name} is not a safetensors file, or it is cut short{held}. Fetch it again.")
    if length > limit:
        raise CheckpointError(f"{name} has a header of {length:,} bytes, and {limit:,} is the most that is read from a "
                              "server. Download the file, and choose it from its folder.")
    return length


def _parse(path: Path, text: Text, begin: int, size: int | None) -> FileHeader:
    """Parse the JSON in `text` from `begin` on as the header of a file of `size` bytes, None when not known."""
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


def _check_layout(entries: Mapping[str, TensorEntry]) -> int:
    """Return the bytes of all tensors. Raises ValueError when they overlap, leave holes or have a wrong size."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end or entry.end < entry.begin:
            raise ValueError(f"{quoted(name)} is at bytes {entry.begin:,} to {entry.end:,}, where {end:,} is next")
        _check_span(name, entry)
        end = entry.end
    return end


def _check_span(name: str, entry: TensorEntry) -> None:
    """Raise ValueError unless the tensor has as many bytes as its dtype and shape need."""
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


def read_json(text: Text, start: int = 0) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Parse the bytes from `start` to the end; return the tensors' entries and the metadata.

    Raises ValueError or RecursionError for a text that is no safetensors header: other JSON, repeated names, text that
    is not UTF-8, shapes and offsets that are not whole numbers from 0 on, or more than the bounds above.
    """
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] | None = None
    reader = HeaderReader(text, start)
    for _ in reader.members():
        name = reader.string(MAX_NAME)
        reader.expect(b":")
        if name == "__metadata__" and metadata is None:
            metadata = reader.metadata()
        elif name is None or name == "__metadata__" or name in entries:
            raise ValueError("a tensor's name is too long or comes twice")
        elif len(entries) == MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        else:
            entries[name] = reader.entry()
    if SPACE.match(text, reader.at).end() != len(text):  # type: ignore[union-attr]
        raise ValueError(f"it goes on after its end, byte {reader.at:,}")
    return entries, metadata or {}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's dtype and shape, and where its bytes begin and end behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class HeaderReader:
    """Reads the header's JSON piece by piece from a position in the text. Raises ValueError for other text."""

    def __init__(self, text: Text, at: int) -> None:
        self.text = text
        self.at = at
        self.others_left = MAX_OTHERS

    def expect(self, wanted: bytes) -> bytes:
        """Read white space and one of the wanted bytes, and return that byte."""
        start = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it always matches
        found = self.text[start:start + 1]
        if not found or found not in wanted:
            raise ValueError(f"{wanted.decode()!r} expected at byte {start:,} of it")
        self.at = start + 1
        return found

    def string(self, limit: int) -> str | None:
        """Read a string and return it; None when it has more than `limit` bytes."""
        self.expect(b'"')
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
        found.encode("utf-8")  # an escape can make a lone surrogate, which cannot be encoded
        return found

    def entry(self) -> TensorEntry:
        """Read the object that describes a tensor."""
        self.expect(b"{")
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
            raise ValueError("an entry has a size or an offset that is not a whole number from 0 on")
        return TensorEntry(dtype, tuple(shape), *offsets)

    def members(self) -> Iterator[None]:
        """Read an object: yield before each member, whose name, colon and value the caller reads."""
        self.expect(b"{")
        if self.expect(b'"}') == b"}":
            return
        self.at -= 1
        while True:
            yield
            if self.expect(b",}") == b"}":
                return

    def metadata(self) -> dict[str, str]:
        """Read an object and return its strings, those that fit into MAX_METADATA; {} for null and the like.

        The format wants strings alone, but files with other values exist: those are returned as their JSON text.
        """
        found: dict[str, str] = {}
        kept = 0
        if self._next() != b"{":
            self._value()
            return found
        for number, _ in enumerate(self.members()):
            if number == MAX_NOTES:
                raise ValueError(f"its metadata has more than {MAX_NOTES:,} names")
            begin = self.at
            key = self.string(MAX_NAME)
            self.expect(b":")
            value = self.string(MAX_METADATA - kept) if self._next() == b'"' else self._value()
            if key is None or value is None:
                continue
            if key in found:
                raise ValueError("the metadata has a name twice")
            found[key] = value
            kept += self.at - begin
        return found

    def _next(self) -> bytes:
        """Skip white space, and return the next byte without reading it."""
        self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at:self.at + 1]

    def _value(self) -> str:
        """Read a value that is no string, and return its text. Brackets are counted alone, and not kept."""
        self._next()
        start, depth = self.at, 0
        while True:
            byte = self._next()
            if byte == b'"':
                self.string(0)
            elif run := OPENING.match(self.text, self.at):
                self.at, depth = run.end(), depth + len(run[0])
            elif byte and byte in b"]},:" and depth:
                self.at, depth = self.at + 1, depth - (byte in b"]}")
            elif scalar := SCALAR.match(self.text, self.at):
                self.at = scalar.end()
            else:
                raise ValueError(f"a value expected at byte {self.at:,} of it")
            if self.at - start > self.others_left:
                raise ValueError(f"its metadata has more than {MAX_OTHERS:,} bytes of other values than strings")
            if depth == 0:
                break
        self.others_left -= self.at - start
        return self.text[start:self.at].decode("utf-8")
