"""Show a picture through a camera: sharp, without aliases, with holes filled from their nearest pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

STEP = 2.0 ** 0.25
"""Each smaller copy of a picture is this factor smaller: a frame has at most that many pixels too few for it."""


FINE = 2
"""A copy is enlarged by this factor with Catmull-Rom's kernel before points of it are read bilinearly. `grid_sample`'s
own bicubic kernel (a = -0.75) moves even a straight ramp, by up to 0.05 px."""
KEPT = 2
"""Copies that are kept: those of all scales of a zoom would take a dozen times the picture's memory."""


class Picture:
    """A picture (1, H, W, C) to be sampled at any scale; copies are made when needed, and the last ones kept."""

    def __init__(self, image: torch.Tensor) -> None:
        self._image = image.movedim(-1, 1)
        self._copies: dict[int, torch.Tensor] = {}

    def at(self, grid: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the picture (h, w, C) at points (h, w, 2) from -1 to 1; beyond its edges, the pixels there.

        scale: pixels of the result to a pixel of the picture, about.
        """
        found = F.grid_sample(self._copy(scale), grid[None].float(), mode="bilinear", padding_mode="border",
                              align_corners=False)
        return found[0].movedim(0, -1)

    def _copy(self, scale: float) -> torch.Tensor:
        """Return a copy with the fewest details that a scale needs, FINE times as large as they need."""
        level = max(0, math.floor(-math.log(scale, STEP) + 1e-6))
        if level not in self._copies:
            if len(self._copies) == KEPT:
                del self._copies[next(iter(self._copies))]
            height, width = (max(1, round(side * STEP ** -level)) for side in self._image.shape[2:])
            smaller = self._image if level == 0 else _resize(self._image, height, width)
            self._copies[level] = _resize(smaller, FINE * height, FINE * width)
        return self._copies[level]


def _resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return F.interpolate(image, (height, width), mode="bicubic", antialias=True, align_corners=False)


def inside(grid: torch.Tensor) -> torch.Tensor:
    """Tell which points (..., 2) lie in a picture, -1..1; (...) bool."""
    return (grid.abs() <= 1).all(-1)


def nearest(known: torch.Tensor) -> torch.Tensor:
    """Return for every pixel the row and column, (H, W, 2), of the nearest known one, of which `known` (H, W) has some.

    By jump flooding (Rong and Tan 2006): passes of 2^k pixels, 2^(k-1), ... 1, and one more of 1.
    """
    height, width = known.shape
    here = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1)
    far = 4 * max(height, width)
    seeds = torch.where(known[..., None], here, -far)
    jump = 2 ** max(0, math.ceil(math.log2(max(height, width))) - 1)
    for reach in [*(jump >> k for k in range(jump.bit_length())), 1]:
        padded = F.pad(seeds.permute(2, 0, 1)[None].float(), (reach,) * 4, value=-far)[0].permute(1, 2, 0).long()
        best = (seeds - here).pow(2).sum(-1)
        for down in (0, reach, 2 * reach):
            for right in (0, reach, 2 * reach):
                other = padded[down : down + height, right : right + width]
                distance = (other - here).pow(2).sum(-1)
                nearer = distance < best
                best = torch.where(nearer, distance, best)
                seeds = torch.where(nearer[..., None], other, seeds)
    return seeds


def fill_holes(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return (H, W, C) with every value that is not `known` (H, W) replaced by the nearest one that is."""
    holes = ~known
    if not bool(holes.any()) or not bool(known.any()):
        return values
    # The nearest known pixel is next to a hole: no need to look beyond the holes' surroundings.
    rows, columns = _around(holes.any(1)), _around(holes.any(0))
    part = values[rows, columns]
    at_row, at_column = nearest(known[rows, columns]).unbind(-1)
    filled = values.clone()
    filled[rows, columns] = part[at_row, at_column]
    return filled


def _around(marked: torch.Tensor) -> slice:
    """Return the range from the first to the last True of (N,), one wider on both sides where there is room."""
    places = marked.nonzero()[:, 0]
    return slice(max(0, int(places[0]) - 1), int(places[-1]) + 2)
