"""Measure the joints of a film while its frames pass by."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
import torch.nn.functional as F

from .seams import REACH, Seam, measure_seam

SIDE = 256
"""Pixels of the longer side at which frames are kept: REACH on either side of a joint, and the first."""


class SeamMeter:
    """Give it every frame in order with `add`, and call `joint` before the first frame behind a joint."""

    def __init__(self) -> None:
        self._reference: torch.Tensor | None = None
        self._recent: deque[torch.Tensor] = deque(maxlen=REACH)
        self._before: list[torch.Tensor] = []
        self._faded, self._width = 0, 0
        self._found: Callable[[Seam], None] | None = None

    def add(self, frame: torch.Tensor) -> None:
        """Take the next frame (H, W, 3)."""
        self._width = frame.shape[1]
        frame = _small(frame)
        if self._reference is None:
            self._reference = frame
        self._recent.append(frame)
        if self._found is not None and len(self._recent) == REACH:
            self.finish()

    def joint(self, found: Callable[[Seam], None], faded: int = 0) -> None:
        """Say that the next frame is the first behind a joint; found(seam) is called when enough frames have passed.

        faded: how many of the next frames are cross-faded.
        """
        self.finish()
        self._before, self._faded, self._found = list(self._recent), faded, found
        self._recent.clear()

    def new_shot(self) -> None:
        """Say that the next frame begins another shot, whose first frame is the reference from now on."""
        self.finish()
        self._recent.clear()
        self._reference = None

    def finish(self) -> None:
        """Measure the last joint with the frames that there are."""
        if self._found is not None and self._recent and self._reference is not None:
            self._found(measure_seam(torch.stack(self._before), torch.stack(list(self._recent)), self._reference,
                                     faded=self._faded, width=self._width))
        self._found = None


def _small(frame: torch.Tensor) -> torch.Tensor:
    """Return a frame (H, W, 3), float 0..1, of at most SIDE pixels a side."""
    share = min(1.0, SIDE / max(frame.shape[:2]))
    size = tuple(max(1, round(side * share)) for side in frame.shape[:2])
    return F.interpolate(frame.movedim(-1, 0)[None], size, mode="bilinear", antialias=True,
                         align_corners=False)[0].movedim(0, -1)
