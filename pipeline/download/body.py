"""The body of a file: one connection, or several when one is slow, written to a partial file and hashed on the way."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

from ..held_file import is_held
from .errors import DownloadError, TransientError
from .hashing import PrefixHash
from .opening import Opening
from .partial import Partial
from .ranges import Work
from .rate import Rate
from .stream import Stream, cancel_all
from .waiting import POLL, Stop

Progress = Callable[[int, int | None], None]
"""(bytes there, bytes in all or None) -> shown; called about ten times a second in the caller's thread."""

PIECES = 64
SMALLEST_PIECE, LARGEST_PIECE = 2**18, 2**23
"""Bytes of one ranged request when there are several connections: a file is some 64 pieces, within these bounds."""
KEEP_EVERY = 5.0
"""Seconds between notes of what is there, which is the most that a kill can cost. Nothing is written meanwhile."""


class _Keeper:
    """Notes what is there now and then, in a thread of its own: it waits for the disk."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._thread: threading.Thread | None = None
        self._last = time.monotonic()
        self._error: OSError | None = None

    def _keep(self) -> None:
        try:
            self._partial.keep()
        except OSError as error:
            if not is_held(error):  # else the next note is soon
                self._error = error

    def now_and_then(self, now: float) -> None:
        if self._error is not None:
            raise self._error
        if now - self._last >= KEEP_EVERY and (self._thread is None or not self._thread.is_alive()):
            self._last = now
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def wait(self, stop: Stop) -> None:
        """Let a note under way be finished, unless stop raises."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(POLL)
            stop()

    def last_time(self, patience: float) -> None:
        """Note what is there at the end; after so many seconds it goes on by itself."""
        if self._thread is not None:
            self._thread.join(patience)
        self._start()
        self._thread.join(patience)


def fetch_body(opening: Opening, partial: Partial, hashed: PrefixHash, max_bytes: int, on_progress: Progress,
               stop: Stop) -> None:
    """Fill the gaps of a partial file, whose first bytes are in `opening`, and hash it as far as that goes.

    Raises TransientError when the connection was lost, DownloadError for what another try does not mend, OSError when
    the disk fails; and whatever stop raises. What came is noted in any case, so that the next try goes on from there.
    """
    end = opening.size if opening.size is not None else max_bytes + 1
    work = Work(partial.ranges.gaps(end), min(max(end // PIECES, SMALLEST_PIECE), LARGEST_PIECE))
    woken = threading.Event()
    keeper = _Keeper(partial)
    watch = _Watch(opening, partial, functools.partial(Stream, work, partial, opening.ask, woken, max_bytes))
    try:
        watch.streams[0].start()
        running = True
        while running:
            caught_up = hashed.follow(partial.prefix)
            now = time.monotonic()
            running = watch.is_running()
            if now - watch.looked >= POLL or not running:
                stop()
                on_progress(partial.done, partial.size)
                keeper.now_and_then(now)
                watch.look(now)
            if caught_up and running:
                woken.wait(POLL)
                woken.clear()
    except BaseException as error:
        cancel_all(watch.streams)
        stopped = not isinstance(error, (DownloadError, OSError))
        keeper.last_time(patience=0.2 if stopped else 30.0)
        raise
    keeper.wait(stop)
    if watch.streams[0].whole:
        partial.size = partial.prefix


class _Watch:
    """The streams of a download: how they fare, and whether more of them are wanted."""

    def __init__(self, opening: Opening, partial: Partial, new_stream: Callable[..., Stream]) -> None:
        self.looked = time.monotonic()
        self.streams = [new_stream(opening.answer)]
        self._opening, self._partial, self._new_stream = opening, partial, new_stream
        self._before = partial.done
        self._rate = Rate(opening.client.policy.pace, self.looked)
        self._may_split = opening.ranged and opening.validator is not None

    def is_running(self) -> bool:
        return any(stream.is_alive() for stream in self.streams)

    def look(self, now: float) -> None:
        """Raise what ended the download, see a stall, and add streams when it is slow."""
        self.looked = now
        running = sum(stream.is_alive() for stream in self.streams)
        done = self._partial.done
        failed = [stream.error for stream in self.streams if stream.error is not None]
        fatal = next((error for error in failed if not isinstance(error, TransientError)), None)
        if fatal is not None:
            raise fatal
        if not running:
            if failed and done != self._partial.size:
                raise failed[0]
            return
        if self._rate.stalled(now, done - self._before):
            raise TransientError(f"{self._opening.url.host} sends less than {self._opening.client.policy.pace.floor} "
                                 "bytes a second.")
        if failed:
            self._rate.stop_growing()
        if self._may_split:
            left = (self._partial.size or done) - done
            self._add(self._rate.streams(now, done - self._before, running, left) - running)

    def _add(self, count: int) -> None:
        for _ in range(count):
            self.streams[0].alone = False
            stream = self._new_stream()
            stream.alone = False
            self.streams.append(stream)
            stream.start()
