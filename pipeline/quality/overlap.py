"""Do two clips show the same picture where they meet, and which frames do they share?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..motion.align import LEAST_SIDE, align

SIDE = 64
"""Pixels of the longer side at which frames are compared: noise and compression average out."""
SAME = 0.5
"""Frames are the same moment when they differ by less than this share of what neighbours differ by."""
FLOOR = 0.002
"""Frames that differ by less, half a level of 8 bits, are the same whatever moves."""
LIKE_THE_BEST = 1.1
"""A number of frames fits when it fits nearly as well as the best."""
STANDS_OUT = 0.34
"""Share of all numbers of frames that may fit when contrast is left out of account."""
STEP, LEAST_SPEED = 4, 0.003
"""Frames between which a speed is measured, and the least one, in widths of the frame per frame, that is no rest."""
SAME_SHOT = 0.4
"""Least correlation of two frames of one shot."""
FLAT = 0.02
"""Standard deviation below which a frame shows nothing, as at the end of a fade."""
Apart = Callable[[list[torch.Tensor], list[torch.Tensor]], float]


def small(frame: torch.Tensor) -> torch.Tensor:
    """Return a frame (H, W, 3) in grey, at most SIDE pixels a side, (h, w)."""
    share = min(1.0, SIDE / max(frame.shape[:2]))
    size = tuple(max(1, round(side * share)) for side in frame.shape[:2])
    grey = frame.float().mean(-1)[None, None]
    return F.interpolate(grey, size, mode="bilinear", antialias=True, align_corners=False)[0, 0]


def find_overlap(tail: list[torch.Tensor], head: list[torch.Tensor]) -> int:
    """Return how many frames at the start of one clip repeat the last ones of the clip before; 0 for none.

    tail, head: the last frames of the one and the first of the other, (h, w) each, as `small` makes them. Where several
    numbers fit, as when nothing moves, it is the smallest: a repeated frame that stays shows less than one too many
    that is dropped. One clip may be brighter or of more contrast as a whole, but where the light fades that is no
    difference: then a number must stand out.
    """
    most = min(len(tail), len(head))
    fitting = _fitting(tail, head, most, _brighter)
    if not fitting:
        fitting = _fitting(tail, head, most, _more_contrast)
        fitting = fitting if len(fitting) <= STANDS_OUT * most else []
    return min(fitting) if fitting else int(_stands_still(tail, head))


def _fitting(tail: list[torch.Tensor], head: list[torch.Tensor], most: int, apart: Apart) -> list[int]:
    """Return the numbers of frames, 1 to `most`, with which the clips may overlap."""
    steps = [apart([one], [other]) for part in (tail, head) for one, other in itertools.pairwise(part)]
    found = {count: apart(tail[-count:], head[:count]) for count in range(1, most + 1)}
    limit = min(SAME * statistics.median(steps or [0.0]), LIKE_THE_BEST * min(found.values(), default=0.0))
    return [count for count, value in found.items() if value <= max(FLOOR, limit)]


def same_shot(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Tell whether two frames (h, w) show the same picture, moved or recoloured a little, and no other shot."""
    flat = [bool(frame.std() < FLAT) for frame in (before, after)]
    if any(flat):
        return all(flat)
    one, other = (frame - frame.mean() for frame in (before, after))
    return float((one * other).mean() / (one.square().mean() * other.square().mean()).sqrt()) > SAME_SHOT


def _stands_still(tail: list[torch.Tensor], head: list[torch.Tensor]) -> bool:
    """Tell whether a camera that moves on both sides of a joint stands still over it: the first frame repeats the last.

    This finds it where a poor VAE changes a frame as much as the motion does.
    """
    if min(len(tail), len(head)) <= STEP or min(tail[0].shape) < LEAST_SIDE or not same_shot(tail[-1], head[0]):
        return False
    before, after = align(tail[-1 - STEP], tail[-1]), align(head[0], head[STEP])
    across, down = (before.x + after.x) / 2 / STEP, (before.y + after.y) / 2 / STEP
    speed = math.hypot(across, down)
    over = align(tail[-1], head[0])
    return speed > LEAST_SPEED and (over.x * across + over.y * down) / speed < speed / 2


def _brighter(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """Return the mean difference of two runs of frames, without the one of their brightness."""
    difference = torch.stack(ones) - torch.stack(others)
    return float((difference - difference.mean()).abs().mean())


def _more_contrast(ones: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """Return the mean difference of two runs of frames, without those of brightness and contrast."""
    one, other = torch.stack(ones), torch.stack(others)
    spread = [max(float(run.std(correction=0)), FLAT) for run in (one, other)]
    difference = (one - one.mean()) / spread[0] - (other - other.mean()) / spread[1]
    return float(difference.abs().mean()) * sum(spread) / 2
