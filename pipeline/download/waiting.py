"""Waiting that Stop ends: blocking work runs in a thread of its own while the caller's thread asks.

A read, a name look-up or an fsync cannot be broken off, but it can be left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from .errors import TransientError

T = TypeVar("T")
Stop = Callable[[], None]
"""Raises when the user pressed Stop; called about ten times a second, in the thread that called the download."""

POLL = 0.1
"""Seconds between two calls of stop."""


def never() -> None:
    """The Stop of a caller that has none."""


class _Work(threading.Thread, Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result.append(self._work())
        except BaseException as error:  # handed over to the thread that waits
            self.error = error


def stoppable(work: Callable[[], T], stop: Stop, patience: float) -> T:
    """Return or raise what blocking work does.

    When stop raises, the work is left behind to end by itself; after `patience` seconds too, with TransientError.
    """
    thread = _Work(work)
    thread.start()
    end = time.monotonic() + patience
    while True:
        thread.join(POLL)
        if not thread.is_alive():
            break
        stop()
        if time.monotonic() > end:
            raise TransientError(f"The server took more than {patience:.0f} seconds.")
    if thread.error is not None:
        raise thread.error
    return thread.result[0]


def pause(seconds: float, stop: Stop) -> None:
    """Sleep, unless stop raises."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop()
        time.sleep(min(POLL, left))
