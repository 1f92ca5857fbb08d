"""Frames are encoded on a thread of their own while the next ones are made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
PATIENCE = 0.1
"""Seconds between two looks at whether the user pressed Stop."""


class AbandonedError(Exception):
    """Raised on the thread: its work is not wanted any more."""


class EncoderThread(Generic[Item]):
    """Runs `work` on what is given to it, in order, holding at most `room` items that wait.

    As a context: left by an exception, the work is abandoned, and the thread has ended either way.
    """

    def __init__(self, work: Callable[[Iterator[Item], Callable[[], None]], None], room: int,
                 stop: Callable[[], None]) -> None:
        """work: gets the items, and a call that raises when it should give up. stop: raises when the user asks."""
        self._items: queue.Queue[Item | None] = queue.Queue(room)
        self._abandoned = threading.Event()
        self._error: BaseException | None = None
        self._stop, self._work = stop, work
        self._thread = threading.Thread(target=self._run, name="MP4 encoder", daemon=True)

    def __enter__(self) -> EncoderThread[Item]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._abandoned.set()
        self._thread.join()

    def give(self, item: Item | None) -> None:
        """Hand an item over, None after the last. Raises what the work raised, and what `stop` raises."""
        while True:
            self._stop()
            if self._error is not None:
                raise self._error
            try:
                return self._items.put(item, timeout=PATIENCE)
            except queue.Full:
                pass

    def finish(self) -> None:
        """Wait until all that was given is done. Raises as `give` does."""
        self.give(None)
        while self._thread.is_alive():
            self._stop()
            self._thread.join(PATIENCE)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._taken(), self._check)
        except BaseException as error:  # handed to the thread that waits
            self._error = error

    def _check(self) -> None:
        if self._abandoned.is_set():
            raise AbandonedError

    def _taken(self) -> Iterator[Item]:
        while True:
            self._check()
            try:
                item = self._items.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
