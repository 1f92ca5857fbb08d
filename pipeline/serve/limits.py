"""How many requests a key may send: a bucket that fills evenly and holds one minute's requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """The buckets of all keys, for the life of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds."""
        self._clock, self._lock = clock, threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}
        """Key's name -> requests left, and when that was."""

    def take(self, key: str, per_minute: float) -> float:
        """Take one request out of a key's bucket; return the seconds to wait for one when there is none, else 0."""
        now = self._clock()
        with self._lock:
            left, then = self._buckets.get(key, (per_minute, now))
            left = min(per_minute, left + (now - then) * per_minute / 60)
            is_allowed = left >= 1
            self._buckets[key] = (left - 1 if is_allowed else left, now)
        return 0.0 if is_allowed else (1 - left) * 60 / per_minute
