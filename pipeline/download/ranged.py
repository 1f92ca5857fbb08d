"""Fetch the body of a file over one connection, or several when one is slow; hash it on the way."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import deque
from collections.abc import Callable

from ..files.atomic import is_held
from ..files.names import size_text
from ..http.errors import DownloadError, TransientError
from ..http.policy import Timeouts
from ..http.session import Response, Session
from ..http.threads import POLL, Stop
from .partial import Partial, PrefixHash
from .ranges import Work
from .response import FirstResponse

GAIN = 1.3
"""More connections must make it that much faster, or no further ones are added."""
GROWTH = 4
SMALLEST, LARGEST = 2**14, 2**18
"""Bytes read at once: little while they come slowly, so that what came is counted and kept; one TLS record at least."""
BATCH = 2**24
"""Bytes after which the thread that hashes is woken, which costs less than at every read, and the system is asked to
bring what was written to the disk, while more comes; the fsync at the end waits for little then (0.4 s for a GB
otherwise). The room on the disk is looked at as often: a margin of four of them is to stay free."""
QUICK, SLOW = 0.02, 0.2
"""Seconds for a read under which more is asked for, and over which less."""

Ask = Callable[[int, int], Response]
"""(first byte, end) -> a response with these bytes; raises DownloadError."""
Progress = Callable[[int, int | None], None]
"""(bytes there, bytes in all or None) -> shown; called about ten times a second in the caller's thread."""

PIECES = 64
SMALLEST_PIECE, LARGEST_PIECE = 2**18, 2**23
"""Bytes of one ranged request when there are several connections: a file is some 64 pieces, within these bounds."""
KEEP_EVERY = 5.0
"""Seconds between notes of what is there, which is the most that a kill can cost. Nothing is written meanwhile."""


class Rate:
    """Told the time (seconds) and the bytes received so far, again and again."""

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self._timeouts = timeouts
        self._window: deque[tuple[float, int]] = deque([(now, 0)])
        self._since, self._before = now, 0
        self._slower: float | None = None
        self._may_grow = True

    def stalled(self, now: float, received: int) -> bool:
        """Return whether fewer bytes came than the floor allows over the last window."""
        self._window.append((now, received))
        while len(self._window) > 2 and self._window[1][0] <= now - self._timeouts.window:
            self._window.popleft()
        start, before = self._window[0]
        return now - start >= self._timeouts.window and received - before < self._timeouts.floor * self._timeouts.window

    def streams(self, now: float, received: int, streams: int, left: int) -> int:
        """Return how many connections there should be, given how many there are and the bytes that are left.

        They are multiplied when the measured rate would need seconds for the rest, as long as that helps: a line that
        is full gives no more to several connections than to one.
        """
        elapsed = now - self._since
        if not self._may_grow or elapsed < self._timeouts.measure:
            return streams
        rate = (received - self._before) / elapsed
        self._since, self._before = now, received
        if left < rate * self._timeouts.worth:
            return streams
        if streams >= self._timeouts.streams or (self._slower is not None and rate < GAIN * self._slower):
            self._may_grow = False
            return streams
        self._slower = rate
        return min(streams * GROWTH, self._timeouts.streams)

    def stop_growing(self) -> None:
        """Add no further connections: the server gives none."""
        self._may_grow = False


class Stream(threading.Thread):
    """Fetches pieces of the work until none is left, or an error ends it."""

    def __init__(self, work: Work, partial: Partial, ask: Ask, woken: threading.Event, max_bytes: int,
                 under_way: Response | None = None) -> None:
        super().__init__(daemon=True)
        self._work, self._partial, self._ask, self._woken = work, partial, ask, woken
        self._max_bytes = max_bytes
        self._response = under_way
        self._cancelled = False
        self.alone = True
        """True to ask for all that follows at once. Cleared when others work beside it."""
        self.error: BaseException | None = None
        self.whole = False
        """True when the server ended a body of unknown length in order."""

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
        """Write nothing more; from another thread."""
        self._cancelled = True

    def _fetch(self, file, start: int, end: int) -> None:
        """Fetch the piece and, as far as nobody else has them, the ones after it in the same response."""
        position = handed_over = start
        try:
            if self._response is None:
                self._response = self._ask(start, self._work.rest(end) if self.alone else end)
            file.seek(start)
            buffer, length = memoryview(bytearray(LARGEST)), SMALLEST
            while position < end:
                began = time.monotonic()
                wanted = min(length, end - position)
                count = self._response.read_into(buffer[:wanted])
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
                    raise DownloadError(f"{self._response.url} does not end: it is over the limit of "
                                        f"{size_text(self._max_bytes)}.")
                if position == end:
                    end = self._work.extend(position)
        finally:
            self._work.give_back(position, end)
            if self._response is not None:
                self._response.close()
                self._response = None

    def _end_of_body(self, position: int) -> None:
        """Take the end of a body of unknown length; raise TransientError for any other, which was cut off."""
        response = self._response
        if self._partial.size is None and response.is_whole:
            self.whole = True
        else:
            raise TransientError(f"The connection to {response.url.host} broke off after {size_text(position)}.")

    @staticmethod
    def _write(file, data: memoryview) -> None:
        while data:
            data = data[file.write(data):]


def _write_back(file, start: int, end: int) -> None:
    """Let the system begin to write these bytes to the disk, without waiting for it."""
    if hasattr(os, "posix_fadvise"):  # Linux begins to write what it cannot drop yet (mm/fadvise.c)
        os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_DONTNEED)


def cancel_all(streams: list[Stream], session: Session, timeout: float = 0.5) -> None:
    """Stop the streams and wait for them a moment; one that hangs all the same writes nothing afterwards."""
    for stream in streams:
        stream.cancel()
    session.abort()  # one that waits for the head of an answer hears nothing else
    end = time.monotonic() + timeout
    for stream in streams:
        stream.join(max(0.0, end - time.monotonic()))


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

    def last_time(self, timeout: float) -> None:
        """Note what is there at the end; after so many seconds it goes on by itself."""
        if self._thread is not None:
            self._thread.join(timeout)
        self._start()
        self._thread.join(timeout)


def fetch_body(first: FirstResponse, partial: Partial, hashed: PrefixHash, max_bytes: int, on_progress: Progress,
               stop: Stop) -> None:
    """Fill the gaps of a partial file, whose first bytes are in `first`, and hash it as far as that goes.

    Raises TransientError when the connection was lost, NoRoomError when the disk is nearly full, DownloadError for what
    another try does not mend, OSError when the disk fails; and whatever stop raises. The session is aborted then. What
    came is noted in any case, so that the next try goes on from there if it can.
    """
    end = first.size if first.size is not None else max_bytes + 1
    work = Work(partial.ranges.gaps(end), min(max(end // PIECES, SMALLEST_PIECE), LARGEST_PIECE))
    woken = threading.Event()
    keeper = _Keeper(partial)
    watch = _Watch(first, partial, functools.partial(Stream, work, partial, first.ask, woken, max_bytes))
    try:
        watch.streams[0].start()
        running, checked = True, partial.done
        while running:
            caught_up = hashed.follow(partial.prefix)
            if partial.done - checked >= BATCH:
                checked = partial.done
                partial.check_room()
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
        cancel_all(watch.streams, first.session)
        stopped = not isinstance(error, (DownloadError, OSError))
        keeper.last_time(timeout=0.2 if stopped else 30.0)
        raise
    keeper.wait(stop)
    if watch.streams[0].whole:
        partial.size = partial.prefix


class _Watch:
    """The streams of a download: how they fare, and whether more of them are wanted."""

    def __init__(self, first: FirstResponse, partial: Partial, new_stream: Callable[..., Stream]) -> None:
        self.looked = time.monotonic()
        self.streams = [new_stream(first.rest)]
        self._first, self._partial, self._new_stream = first, partial, new_stream
        self._before = partial.done
        self._rate = Rate(first.session.policy.timeouts, self.looked)
        self._may_split = first.ranged and first.validator is not None

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
            raise TransientError(f"{self._first.url.host} sends less than {self._first.session.policy.timeouts.floor} "
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
