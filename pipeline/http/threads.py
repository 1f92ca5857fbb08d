"""Work in threads of its own, which may be left behind to end by itself: an event loop that ends waits for every thread
of asyncio.to_thread, and Stop would so wait for an upload.

Waiting that Stop ends: blocking work runs in a thread of its own while the caller's thread asks.

A read, a name look-up or an fsync cannot be broken off, but it can be left behind.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

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

LOOK = 0.25
"""Seconds within which Stop is heard."""


def _begun(work: Callable[[], T]) -> Future[T]:
    """What the work will bring, in a thread that the program does not wait for."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # so that it takes what the work brings, looked at or not

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="wan22-remote", daemon=True).start()
    return result


async def in_thread(work: Callable[[], T], wait: Callable[[float], Awaitable[None]]) -> T:
    """What the blocking work returns or raises; what `wait` raises, which is asked for no time at all again and again.

    The work is left behind when `wait` raises.
    """
    coming = asyncio.wrap_future(_begun(work))
    try:
        while not (await asyncio.wait({coming}, timeout=LOOK))[0]:
            await wait(0)
    finally:
        coming.cancel()
    return coming.result()


async def in_own_loop(work: Coroutine[Any, Any, T], left: threading.Event) -> T:
    """What the work returns or raises, from an event loop of its own.

    ComfyUI computes its other nodes in the prompt's event loop, which stands still meanwhile; this one does not. Work
    that nobody waits for any more goes on: `left` is set then, and it has to find out by itself what is wanted.
    """
    try:
        return await asyncio.wrap_future(_begun(lambda: asyncio.run(work)))
    except asyncio.CancelledError:
        left.set()
        raise
