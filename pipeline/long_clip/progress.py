"""How far a long clip is: its segment, its step, and the seconds that are left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


def time_text(seconds: float) -> str:
    """Return a time as people say it, rounded up: 45 s, 3 min, 2 h 10 min."""
    minutes = -(-seconds // 60)
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 60 else f"{minutes // 60:.0f} h {minutes % 60:.0f} min"


@dataclass
class Progress:
    """The steps of the segments that are still to be sampled, and how long one takes.

    steps: by the segment's place. count: segments of the clip. Time between the last step of a segment and the first of
    the next, in which frames are decoded, counts for the step that follows; what comes before the first step of all, in
    which weights are loaded, does not count.
    """

    steps: Mapping[int, int]
    count: int
    now: Callable[[], float] = time.monotonic
    done: int = 0
    _first: float = 0.0

    @property
    def total(self) -> int:
        """Steps of all segments that this run samples."""
        return sum(self.steps.values())

    def step(self, place: int, step: int) -> str:
        """Note that a step, from 0, of a segment is done; return the line that says how far the clip is."""
        self.done += 1
        now, known = self.now(), ""
        if self.done == 1:
            self._first = now
        elif self.total > self.done:
            known = f", {time_text((now - self._first) / (self.done - 1) * (self.total - self.done))} left"
        return f"segment {place} of {self.count}, step {step + 1} of {self.steps[place]}{known}"

    def frames(self, place: int, done: int, total: int) -> str:
        """Return the line of a segment whose frames are decoded."""
        return f"segment {place} of {self.count}, frame {done} of {total}"
