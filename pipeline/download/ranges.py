"""Keep account of the bytes of a file: which are there, and which of the others somebody is fetching."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""First byte and end (exclusive)."""


class Ranges:
    """A set of bytes as sorted ranges that do not touch."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[Range]:
        return iter(list(self._ranges))

    def add(self, start: int, end: int) -> None:
        """Put the bytes start..end-1 in."""
        if start >= end:
            return
        at = bisect_left(self._ranges, start, key=lambda r: r[1])  # the first that reaches to `start` or beyond
        stop = at
        while stop < len(self._ranges) and self._ranges[stop][0] <= end:
            start, end = min(start, self._ranges[stop][0]), max(end, self._ranges[stop][1])
            stop += 1
        self._ranges[at:stop] = [(start, end)]

    @property
    def prefix(self) -> int:
        """Number of bytes from the first on that are there without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    @property
    def total(self) -> int:
        """Number of bytes that are there."""
        return sum(end - start for start, end in self._ranges)

    def gaps(self, size: int) -> list[Range]:
        """Return what is missing of the first `size` bytes."""
        gaps, at = [], 0
        for start, end in self._ranges:
            if start > at:
                gaps.append((at, min(start, size)))
            at = end
        return gaps + ([(at, size)] if at < size else [])


class Work:
    """Bytes still to be fetched, handed out from the front in pieces; for several threads."""

    def __init__(self, gaps: Iterable[Range], piece: int) -> None:
        self._free = list(gaps)
        self._piece = piece
        self._lock = threading.Lock()

    def claim(self) -> Range | None:
        """Return the next piece; None when all are handed out."""
        with self._lock:
            return self._take(0) if self._free else None

    def extend(self, at: int) -> int:
        """Return the end of the piece that starts at `at`, which the caller now has; `at` when it is not to be had."""
        with self._lock:
            index = next((i for i, (start, _) in enumerate(self._free) if start == at), None)
            return at if index is None else self._take(index)[1]

    def give_back(self, start: int, end: int) -> None:
        """Hand in what a thread could not fetch."""
        with self._lock:
            if start < end:
                self._free = sorted([*self._free, (start, end)])

    def rest(self, at: int) -> int:
        """Return the end of the free bytes that start at `at`."""
        with self._lock:
            return next((end for start, end in self._free if start == at), at)

    def _take(self, index: int) -> Range:
        start, end = self._free.pop(index)
        middle = min(start + self._piece, end)
        if middle < end:
            self._free.insert(index, (middle, end))
        return start, middle
