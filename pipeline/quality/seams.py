"""How well two clips join: the difference over the joint, the motion on both sides of it, the colours."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass

import torch

from ..motion.align import align, small_grey
from .lab import mean_lab

REACH = 17
"""Frames on either side of a joint that are looked at."""
STEP = 4
"""Frames between two that a velocity is measured from: enough for fractions of a pixel to show."""
FLOOR = 0.002
"""Least difference of neighbouring frames, half a level of 8 bits: below it, it is rounding."""
MOST_RATIO = 2.0
"""Clips that were never cut have up to 1.6 where a latent ends: its frames are more alike than those of two latents."""
MOST_JUMP = 0.02
"""Largest jump over the joint, in widths of the frame."""
MOST_SPEED_CHANGE = 0.5
"""Largest change of the velocity, as a share of the faster side's."""
LEAST_SPEED = 0.004
"""In widths of the frame per frame; slower changes of the velocity are no fault."""
MOST_COLOUR_STEP = 2.0
"""In L*a*b*, beyond what neighbouring frames differ by; 2.3 is just noticeable (Mahy et al., 1994)."""
MOST_DRIFT = 10.0


@dataclass(frozen=True)
class Seam:
    """A joint of two clips, measured. Velocities are the content's, in pixels a frame, (right, down)."""

    ratio: float
    """Mean absolute difference over the joint / the median of its neighbours'; 1 is a joint that does not show."""
    velocity_before: tuple[float, float]
    velocity_after: tuple[float, float]
    velocity: tuple[float, float]
    """Over the joint itself."""
    jump: float
    """How far the content is, in pixels, from where its velocity would have taken it over the joint."""
    colour_step: float
    """Distance of the mean colours before and behind the joint in L*a*b*, without what neighbours differ by."""
    drift: float
    """Distance in L*a*b* between the mean colours of the first frame behind the joint and of the reference frame."""
    width: int
    """Of the frames, in pixels."""

    def warnings(self) -> list[str]:
        """Return a sentence for each measure that is above its limit."""
        found = []
        if self.ratio > MOST_RATIO:
            found.append(f"The joint shows: the frames at it differ {self.ratio:.1f} times as much as their "
                         f"neighbours (limit {MOST_RATIO}).")
        if self.jump > MOST_JUMP * self.width:
            found.append(f"The picture jumps by {self.jump:.1f} px at the joint (limit {MOST_JUMP * self.width:.1f}).")
        before, after = self.velocity_before, self.velocity_after
        fastest = max(math.hypot(*before), math.hypot(*after))
        if math.dist(before, after) > max(MOST_SPEED_CHANGE * fastest, LEAST_SPEED * self.width):
            found.append(f"The motion changes at the joint, from {_pixels(before)} to {_pixels(after)}.")
        if self.colour_step > MOST_COLOUR_STEP:
            found.append(f"The colours jump by {self.colour_step:.1f} in L*a*b* at the joint (limit "
                         f"{MOST_COLOUR_STEP}).")
        if self.drift > MOST_DRIFT:
            found.append(f"The mean colour is {self.drift:.1f} in L*a*b* from the first frame's (limit "
                         f"{MOST_DRIFT:g}).")
        return found

    def describe(self) -> str:
        """Say the measures in one line."""
        return (f"seam {self.ratio:.2f}; motion {_pixels(self.velocity_before)} before, {_pixels(self.velocity)} over "
                f"it, {_pixels(self.velocity_after)} behind; colours {self.colour_step:.1f} over it, {self.drift:.1f} "
                "from the first frame")


def measure_seam(before: torch.Tensor, after: torch.Tensor, reference: torch.Tensor, *, faded: int = 0,
                 width: int | None = None) -> Seam:
    """Measure the joint of two clips.

    before: the last frames in front of the joint, (N, H, W, 3), 0..1; after: the first behind it; of both, up to REACH
    are looked at. reference: a frame (H, W, 3), the first of the whole clip. faded: how many frames at the start of
    `after` are cross-faded: the joint is as bad as the worst of their differences. width: of the clip, when these
    frames are smaller.
    """
    before, after = before[-REACH:].float(), after[:REACH].float()
    frames = torch.cat([before, after])
    joint = range(len(before) - 1, len(before) + min(faded, len(after) - 1))
    differences = [float((b - a).abs().mean()) for a, b in itertools.pairwise(frames)]
    # Frames that are repeated for the sake of a rate say nothing about the usual difference.
    usual = statistics.median([d for i, d in enumerate(differences) if i not in joint and d > 0] or [0.0])
    colours = mean_lab(frames)
    steps = (colours[1:] - colours[:-1]).norm(dim=1).tolist()
    usual_step = statistics.median([s for i, s in enumerate(steps) if i not in joint] or [0.0])

    grey, width = small_grey(frames), width or frames.shape[2]
    first, last = max(0, joint.start - 1), min(len(frames) - 1, joint.stop + 2)
    over = _velocity(grey[first : last + 1], width, last - first)
    rest = grey[joint.stop :]
    sides = [_velocity(side, width) if len(side) > 1 else over for side in (grey[: joint.start + 1], rest)]
    expected = [(one + other) / 2 for one, other in zip(*sides, strict=True)]
    return Seam(max(differences[i] for i in joint) / max(usual, FLOOR), *sides, over,
                math.dist(over, expected) * (last - first), max(0.0, max(steps[i] for i in joint) - usual_step),
                float((colours[joint.stop] - mean_lab(reference[None].float())[0]).norm()), width)


def _velocity(grey: torch.Tensor, width: int, step: int = STEP) -> tuple[float, float]:
    """Return the median velocity over frames (F, h, w) that are `step` apart, in pixels of frames of that width."""
    step = min(step, len(grey) - 1)
    moves = [align(grey[i], grey[i + step]) for i in range(0, len(grey) - step, step)]
    return (statistics.median(move.x for move in moves) * width / step,
            statistics.median(move.y for move in moves) * width / step)


def _pixels(velocity: tuple[float, float]) -> str:
    right, down = (round(part, 1) + 0.0 for part in velocity)  # without -0.0
    return f"({right:+.1f}, {down:+.1f}) px a frame"
