"""A clock for loops that are left as soon as enough of them has been seen."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable


class EnoughError(Exception):
    """Raised out of a loop that has been timed."""


class Clock:
    """Times the repetitions of a loop; the first one, which loads and warms up, apart from the others."""

    def __init__(self, repetitions: int, seconds: float, synchronize: Callable[[], None]) -> None:
        """Stop the loop after so many repetitions behind the first, or after one when that took so many seconds."""
        self._repetitions, self._seconds, self._synchronize = repetitions, seconds, synchronize
        self.times = [time.perf_counter()]

    def tick(self) -> None:
        """Note the end of a repetition. Raises EnoughError when it was the last one to see."""
        self._synchronize()
        self.times.append(time.perf_counter())
        seen = len(self.times) - 2
        if seen >= self._repetitions or (seen and self.times[-1] - self.times[0] > self._seconds):
            raise EnoughError

    @property
    def spans(self) -> list[float]:
        """Seconds of each repetition."""
        return [after - before for before, after in itertools.pairwise(self.times)]

    def values(self) -> dict[str, float]:
        """Return the seconds of the first repetition and the median of the others."""
        return {"first": self.spans[0], "seconds": statistics.median(self.spans[1:])}
