"""Run blocking work in daemon threads that can be abandoned.

A name look-up or an fsync cannot be broken off, but it can be left behind to end by itself, and so can a read whose
connection is aborted. An executor's threads cannot be left: the interpreter, or an event loop that ends, waits for each
of them, and Stop would so wait for an upload.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent import futures
from typing import Any, TypeVar

from .errors import TransientError

T = TypeVar("T")
Stop = Callable[[], None]
"""Raises when the user pressed Stop; called about ten times a second, in the thread that called the download."""

POLL = 0.1
"""Seconds between two calls of stop."""
LOOK = 0.25
"""Seconds within which a coroutine hears Stop."""


def never() -> None:
    """Do nothing: the Stop of a caller that has none, the abort of work that has nothing to abort."""


def begin(work: Callable[[], T]) -> futures.Future[T]:
    """Start the work in a thread that nothing waits for; the future gets what it returns or raises."""
    result: futures.Future[T] = futures.Future()
    result.set_running_or_notify_cancel()  # so that it takes what the work brings, looked at or not

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="wan22-network", daemon=True).start()
    return result


def stoppable(work: Callable[[], T], stop: Stop, timeout: float, abort: Callable[[], None]) -> T:
    """Return or raise what blocking work does.

    When stop raises, the work is abandoned; after `timeout` seconds too, with TransientError.
    abort: called then, so that the thread that is left behind ends soon: Session.abort for what reads from a server,
        which may send a byte now and then for ever, while the timeout of a read begins anew with each of them.
    """
    future, end = begin(work), time.monotonic() + timeout
    try:
        while not futures.wait((future,), POLL).done:
            stop()
            if time.monotonic() > end:
                raise TransientError(f"The server took more than {timeout:.0f} seconds.")
    except BaseException:
        abort()
        raise
    return future.result()


def pause(seconds: float, stop: Stop) -> None:
    """Sleep, unless stop raises."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop()
        time.sleep(min(POLL, left))


async def in_thread(work: Callable[[], T], wait: Callable[[float], Awaitable[None]]) -> T:
    """Return or raise what blocking work does; `wait` is asked for no time at all again and again.

    The work is abandoned when `wait` raises.
    """
    coming = asyncio.wrap_future(begin(work))
    try:
        while not (await asyncio.wait({coming}, timeout=LOOK))[0]:
            await wait(0)
    finally:
        coming.cancel()
    return coming.result()


async def in_own_loop(work: Coroutine[Any, Any, T], left: threading.Event) -> T:
    """Return or raise what a coroutine does in an event loop of its own.

    ComfyUI computes its other nodes in the prompt's event loop, which stands still meanwhile; this one does not. Work
    that nobody waits for any more goes on: `left` is set then, and it has to find out by itself what is wanted.
    """
    try:
        return await asyncio.wrap_future(begin(lambda: asyncio.run(work)))
    except asyncio.CancelledError:
        left.set()
        raise
