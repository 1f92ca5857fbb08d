"""A frame as overlapping tiles that are decoded one by one: as few as the memory allows, joined without a seam.

Where two tiles overlap, one fades into the other, so that what the decoder makes of a tile's edge, behind which it sees
nothing, does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import torch

SIDE, OVERLAP = 32, 8
"""Latents a side of the smallest tile, and least overlap of two: 256 and 64 pixels."""


@dataclass(frozen=True)
class Need:
    """What decoding a piece takes, in bytes a latent of the frame."""

    activations: int
    caches: int
    """Of the activations, what is kept from a piece to the next."""


@dataclass(frozen=True)
class Tile:
    """A part of the frame, in latents."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """How a frame is cut."""

    rows: tuple[tuple[int, int], ...]
    """(first latent, number of latents) of each row of tiles, from the top."""
    columns: tuple[tuple[int, int], ...]
    """The same from the left."""
    caches_stay: bool = True
    """Whether the caches of all tiles lie on the device; else each tile's wait in RAM."""

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row."""
        for top, height in self.rows:
            for left, width in self.columns:
                yield Tile(top, left, height, width)

    def bytes_needed(self, need: Need) -> int:
        """Peak of decoding tile by tile; all tiles have one size."""
        area = self.rows[0][1] * self.columns[0][1]
        others = len(self.rows) * len(self.columns) - 1 if self.caches_stay else 0
        return area * (need.activations + others * need.caches)


def choose_layout(height: int, width: int, free: int, need: Need) -> Layout:
    """The fewest tiles of a frame of so many latents that fit into `free` bytes, with their caches or without.

    The smallest tiles when nothing fits.
    """
    grids = [(_cut(height, rows), _cut(width, columns))
             for rows in range(1, _most(height) + 1) for columns in range(1, _most(width) + 1)]
    grids.sort(key=lambda grid: (len(grid[0]) * len(grid[1]), max(grid[0][0][1], grid[1][0][1])))
    layouts = [Layout(*grid, caches_stay) for caches_stay in (True, False) for grid in grids]
    return next((layout for layout in layouts if layout.bytes_needed(need) <= free), layouts[-1])


def layout_of_size(height: int, width: int, tile_height: int, tile_width: int, overlap: int) -> Layout:
    """Tiles of at most that size and at least that overlap, all in latents."""
    return Layout(_cut(height, ceil(max(1, height - overlap) / max(1, tile_height - overlap)), overlap),
                  _cut(width, ceil(max(1, width - overlap) / max(1, tile_width - overlap)), overlap))


def _most(length: int) -> int:
    return ceil(max(1, length - OVERLAP) / (SIDE - OVERLAP))


def _cut(length: int, count: int, overlap: int = OVERLAP) -> tuple[tuple[int, int], ...]:
    """(start, size) of `count` parts of one size that cover a length, evenly placed."""
    size = min(length, ceil((length + (count - 1) * overlap) / count))
    return tuple((round(n * (length - size) / max(1, count - 1)), size) for n in range(count))


def blend_weights(layout: Layout, tile: Tile, scale: int) -> torch.Tensor:
    """How much a tile counts at each of its pixels, (height, width, 1), `scale` pixels a latent.

    Those of all tiles sum to 1 everywhere.
    """
    rows = _fade(layout.rows, (tile.top, tile.height), scale)
    columns = _fade(layout.columns, (tile.left, tile.width), scale)
    return (rows[:, None] * columns)[..., None]


def _fade(parts: tuple[tuple[int, int], ...], part: tuple[int, int], scale: int) -> torch.Tensor:
    """Linear from 0 to 1 over the overlap with the part before, and back over that with the one behind."""
    start, size = part
    weights = torch.ones(size * scale)
    at = parts.index(part)
    if at > 0:
        overlap = (sum(parts[at - 1]) - start) * scale
        weights[:overlap] = (torch.arange(overlap) + 0.5) / overlap
    if at < len(parts) - 1:
        overlap = (start + size - parts[at + 1][0]) * scale
        weights[size * scale - overlap :] = 1 - (torch.arange(overlap) + 0.5) / overlap
    return weights
