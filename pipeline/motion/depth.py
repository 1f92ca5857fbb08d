"""Parallax: a picture and its depth, seen by a camera that has moved.

What is near moves further than what is far, and hides it. The picture becomes points in space, each in the direction
where it is seen at rest; a frame shows the nearest point of those that fall on a pixel. What comes out from behind is
a hole.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ..request import RequestError
from .camera import Camera, Frame
from .warp import fill_holes

STRENGTH = 0.5
"""How much nearer than the picture's plane the nearest point is, and how much further the farthest: an inverse distance
of 1 / focal length times 1 + STRENGTH or 1 - STRENGTH at most."""
FLAT = 0.01
FAR = 0.1
"""How much nearer than the farthest point around a pixel may be that a hole is filled with: what is behind, not what
hides it."""
OVERSAMPLING = 2
"""Points a pixel of the frame, along each side, so that surfaces seen closer by have no cracks."""
MOST_POINTS = 8_000_000
"""Points of a picture, each of which needs over 100 bytes at the peak: a picture that is many frames long has fewer a
pixel than OVERSAMPLING, where its cloud would need more memory than the model."""


def nearness_of(depth: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return inverse distances (H, W) of a DEPTH image, (1, h, w, 3), bright being near, in the size of the picture.

    In units of the plane's, so that 1 moves as the path says: that is the median. Raises RequestError for a depth that
    is the same everywhere.
    """
    grey = depth[0].mean(-1)
    low, high = (float(value) for value in grey.aminmax())
    if high - low < FLAT:
        raise RequestError(f"The depth is the same everywhere ({low:.2f}), so that there is no near and far in it. "
                           "Connect the depth of this picture, or nothing.")
    size = (frame.picture_height, frame.picture_width)
    grey = F.interpolate(grey[None, None].double(), size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    return 1 + STRENGTH * (grey - grey.median()) / (high - low)


def shown_points(camera: Camera, frame: Frame, nearness: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the points of the picture (H, W, 2), in widths of the frame, that a camera shows, and holes as False."""
    points, near = _cloud(frame, nearness)
    space = torch.cat([points, torch.full_like(points[:, :1], camera.focal)], 1) / near[:, None]
    where, distance = camera.project(space)
    columns = ((where[:, 0] + 0.5) * frame.width).floor().long()
    rows = ((where[:, 1] / frame.aspect + 0.5) * frame.height).floor().long()
    falls = (distance > 1e-6) & (columns >= 0) & (columns < frame.width) & (rows >= 0) & (rows < frame.height)
    pixel = (rows * frame.width + columns)[falls]
    closest = torch.full((frame.height * frame.width,), torch.inf, dtype=torch.float64)
    closest.scatter_reduce_(0, pixel, distance[falls], "amin")
    shown = distance[falls] <= closest[pixel]
    winner = torch.full((frame.height * frame.width,), -1)
    winner.scatter_reduce_(0, pixel[shown], falls.nonzero()[:, 0][shown], "amax")  # of equals always the same
    known = winner.view(frame.height, frame.width) >= 0
    chosen = winner.clamp(min=0).view(frame.height, frame.width)
    # The point falls somewhere in the pixel: go from there to its centre, as far as the surface is enlarged.
    enlarged = camera.focal / distance[chosen] / near[chosen]
    found = points[chosen] + (frame.pixels() - where[chosen]) / enlarged[..., None]
    return torch.where(known[..., None], found, _filled(found, near[chosen], known, frame)), known


def _filled(points: torch.Tensor, near: torch.Tensor, known: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Return points (H, W, 2) with holes filled by the nearest known point of what is far around them.

    Of large frames only every n-th pixel is worked out: a hole is what the model draws.
    """
    every = max(1, frame.width // 320)
    points, near, known = points[::every, ::every], near[::every, ::every], known[::every, ::every]
    reach = points.shape[1] // 8
    around = torch.where(known, -near, -torch.inf)[None]
    for size, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        around = F.max_pool2d(around, size, 1, padding)
    filled = fill_holes(points, known & (near <= FAR - around[0]))
    larger = filled.repeat_interleave(every, 0).repeat_interleave(every, 1)
    return larger[: frame.height, : frame.width]


def cloud_size(frame: Frame) -> tuple[int, int]:
    """Return how many points of the picture the cloud has across and down, about MOST_POINTS in all at most."""
    _, _, width, height = frame.crop
    sides = [frame.picture_width * frame.width / width, frame.picture_height * frame.height / height]
    fine = min(OVERSAMPLING, math.sqrt(MOST_POINTS / math.prod(sides)))
    columns, rows = (max(2, round(side * fine)) for side in sides)
    return columns, rows


def _cloud(frame: Frame, nearness: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of the whole picture, (N, 2) in widths of the frame, and how near each is, (N,)."""
    left, top, width, height = frame.crop
    columns, rows = cloud_size(frame)
    xs = ((torch.arange(columns, dtype=torch.float64) + 0.5) / columns * frame.picture_width - left) / width - 0.5
    ys = ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows * frame.picture_height - top) / height - 0.5
    points = torch.stack(torch.meshgrid(xs, ys * frame.aspect, indexing="xy"), -1).flatten(0, 1)
    grid = frame.to_grid(points)[None, None].to(nearness.dtype)
    near = F.grid_sample(nearness[None, None], grid, mode="nearest", padding_mode="border", align_corners=False)
    return points, near.flatten()
