"""Blocking work that Stop is heard during: it is left behind then, to end by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
LOOK = 0.25
"""Seconds within which Stop is heard."""


async def in_thread(work: Callable[[], T], wait: Callable[[float], Awaitable[None]]) -> T:
    """What the work returns or raises; what `wait` raises, which is asked for no time at all again and again.

    Not asyncio.to_thread: ComfyUI ends each prompt's event loop, and that waits for every thread of to_thread.
    """
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # so that it takes what the work brings, looked at or not

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="wan22-remote", daemon=True).start()
    coming = asyncio.wrap_future(result)
    try:
        while not (await asyncio.wait({coming}, timeout=LOOK))[0]:
            await wait(0)
    finally:
        coming.cancel()
    return coming.result()
