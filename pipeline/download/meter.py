"""Say how far a download is."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..files.names import size_text

EVERY = 0.5
"""Seconds between two texts."""


class Meter:
    """The rate of a download, measured from the first report on."""

    def __init__(self, name: str, way: Callable[[], str] = str) -> None:
        """way: asked at the first report how the file comes, as in " through the proxy proxy.example:3128"."""
        self.name, self.way = name, way
        self.began: tuple[float, int] | None = None
        self.told = 0.0

    def text(self, done: int, total: int | None) -> str | None:
        """Return what to show for so many bytes of a total; None when it is too early for another text."""
        now = time.monotonic()
        if self.began is None:
            self.began = (now, done)
            self.name += self.way()
        if now - self.told < EVERY and done != total:
            return None
        self.told = now
        start, before = self.began
        rate = (done - before) / max(now - start, 1e-3)
        said = f"Fetching {self.name}: {size_text(done)}" + (f" of {size_text(total)}" if total else "")
        if rate <= 0:
            return said
        said += f", {size_text(round(rate))}/s"
        return said + (f", {_left((total - done) / rate)} left" if total else "")


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
