"""How fast a download goes: whether it has stalled, and whether more connections would help. Knows no clock."""

from __future__ import annotations

from collections import deque

from .policy import Pace

GAIN = 1.3
"""More connections must make it that much faster, or no further ones are added."""
GROWTH = 4


class Rate:
    """Told the time (seconds) and the bytes received so far, again and again."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._window: deque[tuple[float, int]] = deque([(now, 0)])
        self._since, self._before = now, 0
        self._slower: float | None = None
        self._may_grow = True

    def stalled(self, now: float, received: int) -> bool:
        """Whether fewer bytes came than the floor allows over the last window."""
        self._window.append((now, received))
        while len(self._window) > 2 and self._window[1][0] <= now - self._pace.window:
            self._window.popleft()
        start, before = self._window[0]
        return now - start >= self._pace.window and received - before < self._pace.floor * self._pace.window

    def streams(self, now: float, received: int, streams: int, left: int) -> int:
        """How many connections there should be, given how many there are and the bytes that are left.

        They are multiplied when the measured rate would need seconds for the rest, as long as that helps: a line that
        is full gives no more to several connections than to one.
        """
        elapsed = now - self._since
        if not self._may_grow or elapsed < self._pace.measure:
            return streams
        rate = (received - self._before) / elapsed
        self._since, self._before = now, received
        if left < rate * self._pace.worth:
            return streams
        if streams >= self._pace.streams or (self._slower is not None and rate < GAIN * self._slower):
            self._may_grow = False
            return streams
        self._slower = rate
        return min(streams * GROWTH, self._pace.streams)

    def stop_growing(self) -> None:
        """The server gives no more connections."""
        self._may_grow = False
