"""How strongly a motion steers a clip: two sigmas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..request import RequestError

FREE = 1.0
"""The sigma until which a pixel is held, where it is not held at all."""


@dataclass(frozen=True)
class Strength:
    """How strongly a motion steers: two sigmas, 1 >= weak >= strong >= 0.

    The clip starts at `weak` from the animatic with noise, so that all of it follows roughly; the pixels that the
    motion knows are held until `strong`. Both at 1 steer nothing.
    """

    weak: float
    strong: float
    filled: float = FREE
    """The sigma until which pixels are held that were filled in from around; the paper leaves them free."""

    def check(self) -> None:
        """Raise RequestError for sigmas out of range or in the wrong order."""
        if not 0.0 < self.strong <= self.weak <= 1.0:
            raise RequestError(f"weak_sigma is {self.weak:g} and strong_sigma {self.strong:g}; choose 1 or less for "
                               "weak_sigma, and for strong_sigma as much or less, above 0.")


STRENGTHS: Mapping[str, Strength] = {
    "bundled demo model (0.9, 0.1)": Strength(0.9, 0.1, 0.1),
    "Wan 2.2, camera (0.986, 0.964)": Strength(0.986, 0.964),
    "Wan 2.2, object (0.979, 0.949)": Strength(0.979, 0.949),
}
"""Those of Wan 2.2 are the official ones of Time-to-Move: steps 2 and 5 of 50 at shift 3 for a camera, 3 and 7 for an
object (run_wan.py of github.com/time-to-move/TTM). The bundled model would still go back to the picture at
low sigmas, and cannot invent what comes into it."""
