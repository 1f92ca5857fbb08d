"""How far a run is, and how long it will take: by the steps of its sampler, as fast as they were until now."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class StepClock:
    """The steps of one run, as they are seen from time to time."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    step: int = 0
    steps: int = 0
    _first: tuple[int, float] | None = None
    """The first step that was seen as done, and when."""
    _last: float = 0.0
    """When the last step was seen as done."""

    def see(self, step: int, steps: int) -> None:
        """Record that so many of the steps are done."""
        if (step, steps) == (self.step, self.steps):
            return
        now = self.clock()
        if steps != self.steps or step < self.step:
            self._first = None
        self.step, self.steps, self._last = step, steps, now
        if self._first is None and step > 0:
            self._first = (step, now)

    def seconds_left(self) -> float | None:
        """Return the seconds until the last step is done; None until two steps were seen. What comes after the steps,
        the decoding, is not in it."""
        if self._first is None or self.step <= self._first[0]:
            return None
        each = (self._last - self._first[1]) / (self.step - self._first[0])
        return max(0.0, (self.steps - self.step) * each - (self.clock() - self._last))
