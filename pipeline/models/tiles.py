"""Cut a frame into overlapping tiles, as few as the memory allows, and blend them without a seam.

Where two tiles overlap, one fades into the other: at a tile's edge the decoder lacks the pixels beyond. The fade is
slow at both ends (`smootherstep`), so that what is wrong at the edge hardly counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil

import torch

SIDE, OVERLAP = 32, 8
"""Side of the smallest tile, and least overlap of two, in latents: 256 and 64 pixels."""


@dataclass(frozen=True)
class DecodeMemory:
    """Memory of decoding a piece, in bytes a latent of the frame."""

    activations: int
    caches: int
    """The part of the activations that is kept from one piece to the next."""


@dataclass(frozen=True)
class Tile:
    """A part of the frame, in latents."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class TileGrid:
    """A frame's rows and columns of tiles."""

    rows: tuple[tuple[int, int], ...]
    """(first latent, number of latents) of each row, from the top."""
    columns: tuple[tuple[int, int], ...]
    """(first latent, number of latents) of each column, from the left."""
    caches_stay: bool = True
    """True: the caches of all tiles stay on the device. False: those of other tiles wait in RAM."""

    def tiles(self) -> Iterator[Tile]:
        """Yield all tiles, row by row."""
        for top, height in self.rows:
            for left, width in self.columns:
                yield Tile(top, left, height, width)

    def bytes_needed(self, need: DecodeMemory) -> int:
        """Return the peak of decoding tile by tile, in bytes; all tiles have the same size."""
        area = self.rows[0][1] * self.columns[0][1]
        others = len(self.rows) * len(self.columns) - 1 if self.caches_stay else 0
        return area * (need.activations + others * need.caches)

    def that_fits(self, free: int, need: DecodeMemory) -> TileGrid | None:
        """Return the grid with its caches where they fit into `free` bytes; None when it does not fit at all."""
        grids = [replace(self, caches_stay=stay) for stay in (True, False)]
        return next((grid for grid in grids if grid.bytes_needed(need) <= free), None)


@dataclass
class Cuts:
    """How the frames of a clip that is made in several calls are cut: the same in all of them, for other tiles give
    slightly other latents and frames. Settled by the first call, and anew when the memory does not suffice for it."""

    encode_in_tiles: bool | None = None
    decode: TileGrid | None = None
    on_change: Callable[[], None] = lambda: None
    """Called when one of them was settled."""
    is_anew: bool = False
    """True when one was settled anew."""

    def settle_encoding(self, in_tiles: bool) -> None:
        """Record that frames are encoded as a whole, or in tiles."""
        if in_tiles != self.encode_in_tiles:
            self.is_anew |= self.encode_in_tiles is not None
            self.encode_in_tiles = in_tiles
            self.on_change()

    def settle_decoding(self, grid: TileGrid) -> None:
        """Record the tiles in which frames are decoded."""
        if self.decode is None or (grid.rows, grid.columns) != (self.decode.rows, self.decode.columns):
            self.is_anew |= self.decode is not None
            self.decode = grid
            self.on_change()


def choose_grid(height: int, width: int, free: int, need: DecodeMemory) -> TileGrid:
    """Return the grid of the fewest tiles that fit into `free` bytes, with all caches on the device or without.

    height, width: of the frame, in latents. When nothing fits, the smallest tiles.
    """
    cuts = [(_cut(height, rows), _cut(width, columns))
            for rows in range(1, _most(height) + 1) for columns in range(1, _most(width) + 1)]
    cuts.sort(key=lambda cut: (len(cut[0]) * len(cut[1]), max(cut[0][0][1], cut[1][0][1])))
    grids = [TileGrid(*cut, caches_stay) for caches_stay in (True, False) for cut in cuts]
    return next((grid for grid in grids if grid.bytes_needed(need) <= free), grids[-1])


def grid_of_size(height: int, width: int, tile_height: int, tile_width: int, overlap: int) -> TileGrid:
    """Return the grid of tiles of at most that size and at least that overlap, all in latents."""
    return TileGrid(_cut(height, ceil(max(1, height - overlap) / max(1, tile_height - overlap)), overlap),
                    _cut(width, ceil(max(1, width - overlap) / max(1, tile_width - overlap)), overlap))


def _most(length: int) -> int:
    """Return the number of smallest tiles along a side."""
    return ceil(max(1, length - OVERLAP) / (SIDE - OVERLAP))


def _cut(length: int, count: int, overlap: int = OVERLAP) -> tuple[tuple[int, int], ...]:
    """Return (start, size) of `count` evenly placed parts of one size that cover a length."""
    size = min(length, ceil((length + (count - 1) * overlap) / count))
    return tuple((round(n * (length - size) / max(1, count - 1)), size) for n in range(count))


def blend_weights(grid: TileGrid, tile: Tile, scale: int) -> torch.Tensor:
    """Return a tile's weight at each pixel, (height, width, 1), at `scale` pixels a latent.

    The weights of all tiles sum to 1 everywhere.
    """
    rows = _fade(grid.rows, (tile.top, tile.height), scale)
    columns = _fade(grid.columns, (tile.left, tile.width), scale)
    return (rows[:, None] * columns)[..., None]


def _fade(parts: tuple[tuple[int, int], ...], part: tuple[int, int], scale: int) -> torch.Tensor:
    """Return weights that rise from 0 to 1 over the overlap with the part before, and fall over that with the next."""
    start, size = part
    weights = torch.ones(size * scale)
    at = parts.index(part)
    if at > 0:
        overlap = (sum(parts[at - 1]) - start) * scale
        weights[:overlap] = smootherstep((torch.arange(overlap) + 0.5) / overlap)
    if at < len(parts) - 1:
        overlap = (start + size - parts[at + 1][0]) * scale
        weights[size * scale - overlap :] = 1 - smootherstep((torch.arange(overlap) + 0.5) / overlap)
    return weights


def smootherstep(x: torch.Tensor) -> torch.Tensor:
    """Return 0 to 1 for x, 0 to 1, of any shape; slope and curvature are 0 at both ends (Perlin, "Improving Noise",
    2002)."""
    return x**3 * (x * (6 * x - 15) + 10)
