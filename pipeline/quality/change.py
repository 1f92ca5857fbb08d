"""What changes from the first frame to the last, where both show the same content: colours, saturation, sharpness.

The way of the camera is followed from key frame to key frame, so that a pan to a bluer part of the scene is no drift.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..motion.align import LEAST_SIDE, Move, align
from .facts import ClipFacts
from .lab import rgb_to_lab

LEAST_SHARE = 0.3
"""Of the frame that must still be in the picture at the end."""
MOST_ZOOM = 5.0
"""More, or less than one over it, is none that was found."""
MOST_FADED = 1.8
"""Factor by which the picture may be darker or brighter at the end and still tell of colours and detail."""
BLOCK = 4
"""Pixels of the blocks in which coloured grain averages out: it is no colour that a clip could lose."""


@dataclass(frozen=True)
class Change:
    """From the first frame to the last one of a shot."""

    camera: Move
    """Of the content."""
    drift: float
    """Distance of the mean colours in a*b*, at equal brightness; a fade is none. 0 where too little of the first frame
    is left to compare; then there is no saturation and no blur either."""
    saturation: float
    """Share by which colourfulness has grown, or below 0 fallen."""
    blur: float
    """Factor by which fine detail has become weaker; 1 for a clip as sharp at the end as at the beginning."""
    steps: int
    """Frames from the first one to the last one that are compared; 0 where there are none."""


NO_CHANGE = Change(Move(), 0.0, 0.0, 1.0, 0)


def change(facts: ClipFacts, frames: range) -> Change:
    """Measure the change over some frames, from key frame to key frame, but not to where the light has faded.

    Where there are no two of them, or they are too small to be compared, it is none.
    """
    at = [index for index in sorted(facts.keys) if index in frames]
    keys = [facts.keys[index] for index in at]
    if len(keys) < 2 or min(keys[0].shape[:2]) < LEAST_SIDE:
        return NO_CHANGE
    bright = max(float(keys[0].mean()), 1e-3)
    keys = list(itertools.takewhile(lambda key: 1 / MOST_FADED < float(key.mean()) / bright < MOST_FADED, keys))
    if len(keys) < 2:
        return NO_CHANGE
    steps = at[len(keys) - 1] - at[0]
    camera = Move()
    for one, other in itertools.pairwise(key.mean(-1) for key in keys):
        # A fade is no zoom, although both make the edges of the picture darker.
        camera = camera.then(align(one, other * (one.mean() / other.mean().clamp(min=1e-3))))
    seen, weight = _followed(keys[-1], camera)
    if float(weight.mean()) < LEAST_SHARE or not 1 / MOST_ZOOM < camera.scale < MOST_ZOOM:
        return Change(camera, 0.0, 0.0, 1.0, steps)
    before, after = (_mean(frame, weight) for frame in (keys[0], seen))
    lit = (seen * (before.mean() / after.mean().clamp(min=1e-3))).clamp(0, 1)
    colours = [_mean(rgb_to_lab(frame)[..., 1:], weight) for frame in (keys[0], lit)]
    chroma = [_chroma(frame, weight) for frame in (keys[0], lit)]
    # Detail is measured in the last frame itself: to follow the camera, `seen` was interpolated, which blurs.
    detail = [_detail(keys[0], weight), _detail(keys[-1], _still_there(keys[-1], camera))]
    return Change(camera, float((colours[1] - colours[0]).norm()), chroma[1] / chroma[0] - 1,
                  math.sqrt(detail[0] / detail[1]) / camera.scale**2, steps)


def _grid(frame: torch.Tensor, camera: Move) -> torch.Tensor:
    """Return where each pixel of the first frame is in `frame` (h, w, 3), for grid_sample, (1, h, w, 2)."""
    height, width = frame.shape[:2]
    aspect = height / width
    x, y = torch.meshgrid((torch.arange(width) + 0.5) / width - 0.5,
                          ((torch.arange(height) + 0.5) / height - 0.5) * aspect, indexing="xy")
    cos, sin = camera.scale * math.cos(camera.turn), camera.scale * math.sin(camera.turn)
    at = torch.stack([cos * x - sin * y + camera.x, sin * x + cos * y + camera.y], -1)
    return (at * torch.tensor([2.0, 2.0 / aspect]))[None]


def _followed(frame: torch.Tensor, camera: Move) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a frame (h, w, 3) as the first one shows it, and where it does, (h, w)."""
    grid = _grid(frame, camera)
    seen = F.grid_sample(frame.movedim(-1, 0)[None], grid, padding_mode="border", align_corners=False)
    return seen[0].movedim(0, -1), (grid[0].abs() <= 1).all(-1).float()


def _still_there(frame: torch.Tensor, camera: Move) -> torch.Tensor:
    """Return which pixels of a frame (h, w, 3) the first one shows too, (h, w)."""
    turn = -camera.turn
    back = Move(0, 0, 1 / camera.scale, turn)
    moved = Move(-camera.x, -camera.y).then(back)
    return (_grid(frame, moved)[0].abs() <= 1).all(-1).float()


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the mean (C,) of values (h, w, C) under weights (h, w)."""
    return (values * weight[..., None]).sum((0, 1)) / weight.sum()


def _chroma(frame: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the mean distance from grey of a frame (h, w, 3) under weights (h, w), in blocks, and 1 for black."""
    share = F.avg_pool2d(weight[None, None], BLOCK)[0, 0]
    blocks = F.avg_pool2d((frame * weight[..., None]).movedim(-1, 0)[None], BLOCK)[0].movedim(0, -1)
    colours = rgb_to_lab(blocks / share.clamp(min=1e-6)[..., None])[..., 1:]
    return float(_mean(colours.norm(dim=-1, keepdim=True), share)) + 1


def _detail(frame: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the mean square of the Laplacian of the brightness under weights (h, w), as a share of its variance."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    grey = frame.mean(-1)
    edges, inner = F.conv2d(grey[None, None], kernel)[0, 0].square(), weight[1:-1, 1:-1]
    spread = float(grey[weight > 0].var(correction=0)) if bool((weight > 0).any()) else 0.0
    return max(float((edges * inner).sum() / inner.sum().clamp(min=1)), 1e-7) / max(spread, 1e-4)
