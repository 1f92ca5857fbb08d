"""One connection's worth of a download: a thread that fetches pieces and writes them to their place."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from ..size_text import size_text
from .errors import DownloadError, TransientError
from .partial import Partial
from .ranges import Work
from .transport import Answer

SMALLEST, LARGEST = 2**14, 2**18
"""Bytes read at once: little while they come slowly, so that what came is counted and kept; one TLS record at least."""
BATCH = 2**24
"""Bytes after which the thread that hashes is woken, which costs less than at every read, and the system is asked to
bring what was written to the disk, while more comes; the fsync at the end waits for little then (0.4 s for a GB
otherwise)."""
QUICK, SLOW = 0.02, 0.2
"""Seconds for a read under which more is asked for, and over which less."""

Ask = Callable[[int, int], Answer]
"""(first byte, end) -> an answer with these bytes; raises DownloadError."""


class Stream(threading.Thread):
    """Fetches pieces of the work until none is left, or an error ends it."""

    def __init__(self, work: Work, partial: Partial, ask: Ask, woken: threading.Event, max_bytes: int,
                 under_way: Answer | None = None) -> None:
        super().__init__(daemon=True)
        self._work, self._partial, self._ask, self._woken = work, partial, ask, woken
        self._max_bytes = max_bytes
        self._answer = under_way
        self._cancelled = False
        self.alone = True
        """Whether to ask for all that follows at once. Cleared when others work beside it."""
        self.error: BaseException | None = None
        self.whole = False
        """Whether the server ended a body of unknown length in order."""

    def run(self) -> None:
        try:
            with self._partial.path.open("r+b", buffering=0) as file:
                while not self._cancelled and not self.whole and (piece := self._work.claim()):
                    self._fetch(file, *piece)
        except BaseException as error:  # raised again by the thread that waits
            self.error = error
        finally:
            self._woken.set()

    def cancel(self) -> None:
        """Stop at once; from another thread."""
        self._cancelled = True
        answer = self._answer
        if answer is not None:
            answer.abort()

    def _fetch(self, file, start: int, end: int) -> None:
        """Fetch the piece and, as far as nobody else has them, the ones after it in the same answer."""
        position = handed_over = start
        try:
            if self._answer is None:
                self._answer = self._ask(start, self._work.rest(end) if self.alone else end)
            file.seek(start)
            buffer, length = memoryview(bytearray(LARGEST)), SMALLEST
            while position < end:
                began = time.monotonic()
                wanted = min(length, end - position)
                count = self._answer.read_into(buffer[:wanted])
                if self._cancelled:
                    return
                self._write(file, buffer[:count])
                self._partial.add(position, position + count)
                position += count
                if position - handed_over >= BATCH:
                    self._woken.set()
                    _write_back(file, handed_over, position)
                    handed_over = position
                if count < wanted:
                    self._end_of_body(position)
                    return
                took = time.monotonic() - began
                if took < QUICK:
                    length = min(2 * length, LARGEST)
                elif took > SLOW:
                    length = max(length // 2, SMALLEST)
                if position > self._max_bytes:
                    raise DownloadError(f"{self._answer.url} does not end: it is over the limit of "
                                        f"{size_text(self._max_bytes)}.")
                if position == end:
                    end = self._work.extend(position)
        finally:
            self._work.give_back(position, end)
            if self._answer is not None:
                self._answer.close()
                self._answer = None

    def _end_of_body(self, position: int) -> None:
        """A body of unknown length may end; any other was cut off."""
        answer = self._answer
        if self._partial.size is None and answer.response.isclosed():
            self.whole = True
        else:
            raise TransientError(f"The connection to {answer.url.host} broke off after {size_text(position)}.")

    @staticmethod
    def _write(file, data: memoryview) -> None:
        while data:
            data = data[file.write(data):]


def _write_back(file, start: int, end: int) -> None:
    """Let the system begin to write these bytes to the disk, without waiting for it."""
    if hasattr(os, "posix_fadvise"):  # Linux begins to write what it cannot drop yet (mm/fadvise.c)
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def cancel_all(streams: list[Stream], patience: float = 0.5) -> None:
    """Stop the streams and wait for them a moment; one that hangs in a connection writes nothing afterwards."""
    for stream in streams:
        stream.cancel()
    end = time.monotonic() + patience
    for stream in streams:
        stream.join(max(0.0, end - time.monotonic()))
