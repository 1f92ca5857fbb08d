"""Frames that stand still, cuts, jumps, frames out of order, running back: faults of motion.

All are counted in the clip's own motion: the median difference of neighbouring frames.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection

from .facts import ClipFacts
from .finding import NOTHING, Finding

FLOOR = 0.002
"""Least difference that is more than rounding to 8 bits."""
STANDS_STILL = 0.12
"""Frames stand still that differ by less than this share of what the livelier half of the clip does."""
UNLIKE = 0.5
"""Least likeness of two frames of one shot."""
NEAR = 4
"""Neighbours on each side with which a frame is compared."""
LEAST_TRAVEL = 3.0
"""In median differences: a clip whose frames never differ by more from the first one does not travel."""


def usual_step(facts: ClipFacts, skipped: Collection[int]) -> float:
    """Return the median difference of neighbours, FLOOR at least."""
    steps = [step for index, step in enumerate(facts.step) if index and not _touches(skipped, index - 1, index)]
    return max(FLOOR, statistics.median(steps or [0.0]))


def frozen(facts: ClipFacts) -> Finding:
    """Return the longest run of frames that repeat the one before, in a clip that moves; 0 for a static camera."""
    steps = sorted(facts.step[1:])
    lively = steps[3 * len(steps) // 4] if steps else 0.0
    if lively < 2 * FLOOR:
        return NOTHING
    longest: list[int] = []
    run: list[int] = []
    for index in range(1, len(facts)):
        run = [*run, index] if facts.step[index] < STANDS_STILL * lively else []
        longest = max(longest, run, key=len)
    return Finding(float(len(longest)), tuple(longest))


def cut(facts: ClipFacts, skipped: Collection[int]) -> Finding:
    """Return the largest difference of neighbours that are not alike, in usual ones; with the first frame behind each
    of them."""
    usual = usual_step(facts, skipped)
    found = sorted(((facts.step[index] / usual, index) for index in range(1, len(facts))
                    if facts.likeness[index] < UNLIKE and not _touches(skipped, index - 1, index)), reverse=True)
    return Finding(found[0][0], tuple(index for _, index in found)) if found else NOTHING


def seam(facts: ClipFacts, skipped: Collection[int]) -> Finding:
    """Return the largest difference of neighbours, in the median of those near it or most of the usual one."""
    least = 0.75 * usual_step(facts, skipped)
    found = []
    for index in range(1, len(facts)):
        near = [facts.step[other] for other in range(max(1, index - NEAR), min(len(facts), index + NEAR + 1))
                if other != index and not _touches(skipped, other - 1, other)]
        if near and not _touches(skipped, index - 1, index):
            found.append((facts.step[index] / max(FLOOR, least, statistics.median(near)), index))
    return Finding(max(found)[0], (max(found)[1],)) if found else NOTHING


def order(facts: ClipFacts, skipped: Collection[int]) -> Finding:
    """Return by what factor the way through four frames is longer than with the middle two swapped, at its worst.

    The way is the sum of differences. It is about 0.5 for frames in order, 1 for noise, 2 for two that are swapped.
    """
    found = [(float(facts.step[index] + facts.step[index + 2])
              / max(2 * FLOOR, facts.second_step[index + 1] + facts.second_step[index + 2]), index)
             for index in range(1, len(facts) - 2) if not _touches(skipped, index - 1, index + 2)]
    return Finding(max(found)[0], (max(found)[1], max(found)[1] + 1)) if found else NOTHING


def smoothness(facts: ClipFacts) -> float:
    """Return how well the median frame is what lies between its neighbours: 1 for even motion, 0 for noise.

    VBench measures its motion smoothness in this manner, with a model that interpolates; here it is the plain mean.
    """
    steps, residuals = facts.step[1:], facts.residual[1:-1]
    if not residuals or statistics.median(steps) < FLOOR:
        return 1.0
    return max(0.0, 1 - statistics.median(residuals) / statistics.median(steps))


def jerk(facts: ClipFacts, skipped: Collection[int]) -> Finding:
    """Return the largest change of the shift between neighbours beside those near it, in widths of the frame."""
    found = []
    for index in range(1, len(facts)):
        near = [facts.shift[other] for other in range(max(1, index - NEAR), min(len(facts), index + NEAR + 1))
                if other != index and not _touches(skipped, other - 1, other)]
        if near and not _touches(skipped, index - 1, index):
            usual = tuple(statistics.median(values) for values in zip(*near, strict=True))
            found.append((math.dist(facts.shift[index], usual), index))
    return Finding(max(found)[0], (max(found)[1],)) if found else NOTHING


def runs_back(facts: ClipFacts, skipped: Collection[int]) -> Finding:
    """Return by how much the last frame is like the first again: 1 for a clip that ends where it began, 0 for none.

    That is the share of the way, in differences from the first frame, that is taken back. A clip that never goes far
    has no way to take back.
    """
    away = [value for index, value in enumerate(facts.from_first) if index not in skipped]
    if len(away) < 3 or max(away) < LEAST_TRAVEL * usual_step(facts, skipped):
        return NOTHING
    return Finding(1 - away[-1] / max(away), (len(facts) - 1,))


def _touches(skipped: Collection[int], first: int, last: int) -> bool:
    return any(index in skipped for index in range(first, last + 1))
