"""Parallax: a picture and its depth, seen by a camera that has moved.

What is near moves further than what is far, and hides it. The picture becomes points in space, each in the direction
where it is seen at rest; a frame shows the nearest point of those that fall on a pixel. What comes out from behind is
a hole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
MOST_DOLLY = 5 / 3
"""How much larger the camera makes the picture by going closer. The nearest point is then 1 / (1 + STRENGTH - STRENGTH
MOST_DOLLY) = 1.5 times as large beside its plane; from 3 on, the camera would be past it."""
OVERSAMPLING = 2
"""Points a pixel of the frame, along each side, where surfaces are seen at their closest: so they have no cracks."""
COARSE_POINTS, MOST_POINTS = 500_000, 16_000_000
"""Points of the whole picture by which what is seen of it is found, and of that part at most. Each of these needs over
100 bytes at the peak. 1280x720 needs 4 million, and more where things of very different distance are in the frame."""


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
    cloud = _seen_cloud(camera, frame, nearness)
    points, near, where, distance = cloud.points, cloud.near, cloud.where, cloud.distance
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
    found = points[chosen] + (frame.pixels() - where[chosen]) / cloud.enlarged[chosen][..., None]
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


@dataclass(frozen=True)
class _Cloud:
    """Points of a part of the picture, and what a camera makes of them; N of them, row by row."""

    points: torch.Tensor
    """(N, 2), in widths of the frame."""
    near: torch.Tensor
    """(N,), of nearness_of."""
    where: torch.Tensor
    """(N, 2), in the camera's frame, in its widths."""
    distance: torch.Tensor
    """(N,), from the camera, in widths of the frame; 0 or less for what is behind it."""
    enlarged: torch.Tensor
    """(N,): how much larger than at rest the surface is seen."""


def _cloud(camera: Camera, frame: Frame, nearness: torch.Tensor, part: tuple[float, float, float, float],
           columns: int, rows: int) -> _Cloud:
    """Return columns x rows points of a part of the picture: left, top, right and bottom, 0..1 over the whole."""
    left, top, width, height = frame.crop
    xs, ys = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * (end - start) + start
              for count, start, end in ((columns, part[0], part[2]), (rows, part[1], part[3])))
    xs, ys = (xs * frame.picture_width - left) / width - 0.5, (ys * frame.picture_height - top) / height - 0.5
    points = torch.stack(torch.meshgrid(xs, ys * frame.aspect, indexing="xy"), -1).flatten(0, 1)
    grid = frame.to_grid(points)[None, None].to(nearness.dtype)
    near = F.grid_sample(nearness[None, None], grid, mode="nearest", padding_mode="border", align_corners=False)
    near = near.flatten()
    where, distance = camera.project(torch.cat([points, torch.full_like(points[:, :1], camera.plane)], 1)
                                     / near[:, None])
    return _Cloud(points, near, where, distance, camera.focal / distance / near)


def _seen_cloud(camera: Camera, frame: Frame, nearness: torch.Tensor) -> _Cloud:
    """Return the part of the picture that a camera sees, as many points as its closest surface needs.

    A coarse cloud of the whole picture tells which part that is, with some of its points to spare on every side.
    """
    _, _, width, height = frame.crop
    sides = frame.picture_width * frame.width / width, frame.picture_height * frame.height / height
    fine = min(1.0, math.sqrt(COARSE_POINTS / math.prod(sides)))
    columns, rows = (max(2, round(side * fine)) for side in sides)
    whole = _cloud(camera, frame, nearness, (0.0, 0.0, 1.0, 1.0), columns, rows)
    reach = torch.tensor([1.0, frame.aspect], dtype=torch.float64) * 0.55  # 0.5 is the frame itself
    seen = ((whole.distance > 1e-6) & (whole.where.abs() <= reach).all(-1)).view(rows, columns)
    if not bool(seen.any()):
        return whole
    part, counts = [], []
    for hit, count, side in ((seen.any(0), columns, sides[0]), (seen.any(1), rows, sides[1])):
        found = hit.nonzero()[:, 0]
        first, last = max(0, int(found[0]) - 2), min(count, int(found[-1]) + 3)
        part.append((first / count, last / count))
        counts.append(side * (last - first) / count)
    dense = min(OVERSAMPLING * float(whole.enlarged[seen.flatten()].max()),
                math.sqrt(MOST_POINTS / math.prod(counts)))
    return _cloud(camera, frame, nearness, (part[0][0], part[1][0], part[0][1], part[1][1]),
                  *(max(2, round(count * dense)) for count in counts))
