"""The frames of one segment as the clip shows them: colours matched, faded from the segment before, cut to its piece.

Frames come one by one from the decoder and go on to the encoder, so that only a few are in memory.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from ..video.colour_match import LabStatistics, colour_statistics, match_colours
from ..video.cross_fade import cross_fade
from ..video.join_settings import JOINT
from .plan import PlannedSegment

JUST_NOTICEABLE = 2.3
"""In L*a*b* (Mahy et al., 1994)."""


@dataclass(frozen=True)
class Colours:
    """How the colours of a segment are brought to those before it: strength 0..1, way of video/join_settings.py."""

    strength: float = 1.0
    way: str = JOINT


@dataclass
class SegmentFrames:
    """The frames of a segment, once; `tail` has the last ones when all have been taken.

    decoded: IMAGE pieces (f, H, W, 3), float 0..1. before: the last frames of the segment before, in the colours they
    are shown in, (n, H, W, 3); None for the first segment. colours: None leaves them as they are.
    """

    decoded: Iterable[torch.Tensor]
    planned: PlannedSegment
    before: torch.Tensor | None
    colours: Colours | None
    tail_length: int

    def __post_init__(self) -> None:
        self._tail: deque[torch.Tensor] = deque(maxlen=self.tail_length)

    @property
    def tail(self) -> torch.Tensor:
        """The segment's last frames, (n, H, W, 3), before any fades: the next one goes on from them."""
        return torch.stack(tuple(self._tail))

    def shown(self) -> Iterator[torch.Tensor]:
        """Yield the frames of the segment's piece, a few at a time, (f, H, W, 3)."""
        planned, fading = self.planned, []
        for number, frame in enumerate(self._matched()):
            self._tail.append(frame)
            if planned.start <= number < planned.overlap:
                fading.append(frame)
                if number == planned.overlap - 1:
                    yield cross_fade(self.before[-len(fading) :], torch.stack(fading))
            elif planned.start <= number < planned.stop:
                yield frame[None]

    def _matched(self) -> Iterator[torch.Tensor]:
        """Yield the frames one by one, in matched colours."""
        frames = (frame for piece in self.decoded for frame in piece)
        if self.before is None or self.colours is None or self.colours.strength == 0:
            yield from frames
            return
        reference, strength, way = colour_statistics(self.before[-1]), self.colours.strength, self.colours.way
        known = [next(frames) for _ in range(self.planned.overlap)]
        new = next(frames)
        of_known = of_new = None
        if way == JOINT:
            of_known = colour_statistics(known[-1])  # it shows the moment of the reference
            of_new = _without_step(of_known, colour_statistics(new))
        for frame in known:
            yield match_colours(frame[None], reference, strength, way, of_known)[0]
        for frame in itertools.chain([new], frames):
            yield match_colours(frame[None], reference, strength, way, of_new)[0]


def _without_step(known: LabStatistics, new: LabStatistics) -> LabStatistics:
    """Return what the new frames are matched by: the statistics of the last known frame, their mean moved by the step
    to the first new one.

    Such a step is the model's, not the scene's, as long as it is small. A larger one may be what a prompt or a LoRA is
    there for, and loses no more than can just be noticed.
    """
    step = new.mean - known.mean
    return replace(known, mean=known.mean + step * min(1.0, JUST_NOTICEABLE / max(float(step.norm()), 1e-6)))
