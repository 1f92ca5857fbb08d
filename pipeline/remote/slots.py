"""How many jobs of a provider this process has under way, so that an account's limit is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

LOOK = 0.5
"""Seconds between two looks for a free slot."""
_taken: Counter[tuple[str, str]] = Counter()
_lock = threading.Lock()


def _take(account: tuple[str, str], most: int) -> bool:
    with _lock:
        if _taken[account] >= most:
            return False
        _taken[account] += 1
        return True


@asynccontextmanager
async def slot(provider: str, profile: str, most: int, wait: Callable[[float], Awaitable[None]]) -> AsyncIterator[None]:
    """Wait for one of `most` slots of an account, and hold it. Not an asyncio.Semaphore: every prompt of ComfyUI has
    an event loop of its own."""
    account = (provider, profile)
    while not _take(account, most):
        await wait(LOOK)
    try:
        yield
    finally:
        with _lock:
            _taken[account] -= 1
