"""The JSON in a .safetensors header, read piece by piece: what a hostile one costs in memory has a bound.

Format: github.com/huggingface/safetensors, safetensors/src/tensor.rs (`HashMetadata`, `TensorInfo`). A parser of all
JSON makes twenty bytes of Python objects of one byte of `[],[],[],`, so each entry is bounded before it is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
if TYPE_CHECKING:
    import mmap

    Text = bytes | mmap.mmap


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
