"""Work in threads of its own, which may be left behind to end by itself: an event loop that ends waits for every thread
of asyncio.to_thread, and Stop would so wait for an upload."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
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
