"""Several clips beside each other in one film, each under its label, played in step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from ..request import RequestError
from .conform import at_rate, is_same_rate
from .source import ClipSource

MOST_WIDTH = 1920
"""Pixels of a grid whose cells have no width given."""
LEAST_CELL, MOST_CELL = 64, 2048
STRIP = 28
"""Pixels in height of a label, below its clip."""


def columns_of(count: int, columns: int) -> int:
    """Return the columns of a grid of `count` clips: those given, or with 0 as many as make it about square."""
    return min(count, columns) if columns else math.ceil(math.sqrt(count))


def cell_size(clips: Sequence[ClipSource], columns: int, cell_width: int) -> tuple[int, int]:
    """Return width and height of a cell in pixels, both even, in the shape of the first clip.

    cell_width: 0 for that of the first clip, or what fits MOST_WIDTH. Raises RequestError for one that cannot be.
    """
    first = clips[0]
    if cell_width and not LEAST_CELL <= cell_width <= MOST_CELL:
        raise RequestError(f"cell_width is {cell_width}; choose {LEAST_CELL} to {MOST_CELL} pixels, or 0 for that of "
                           "the first clip.")
    width = cell_width or min(first.width, MOST_WIDTH // columns)
    return _even(width), _even(width * first.height / first.width)


def grid(clips: Sequence[ClipSource], labels: Sequence[str], columns: int, cell: tuple[int, int],
         rate: Fraction) -> Iterator[torch.Tensor]:
    """Yield the frames (1, H, W, 3) of clips in rows of `columns`; one frame of each is in memory.

    A clip is shown whole, with black beside it where it has another shape than its cell. One that is shorter than the
    others stays at its last frame. labels: one a clip; with none at all there are no strips for them.
    """
    width, height = cell
    strips = [_label(text, width) for text in labels] if any(labels) else []
    rows = math.ceil(len(clips) / columns)
    step = height + (STRIP if strips else 0)
    page = torch.zeros(rows * step, columns * width, 3)
    for place, strip in enumerate(strips):
        top, left = place // columns * step + height, place % columns * width
        page[top : top + STRIP, left : left + width] = strip
    films = [clip.frames() if is_same_rate(clip.rate, rate) else at_rate(clip.frames(), clip.rate, rate)
             for clip in clips]
    running = set(range(len(clips)))
    while True:
        for place in sorted(running):
            frame = next(films[place], None)
            if frame is None:
                running.remove(place)
                continue
            top, left = place // columns * step, place % columns * width
            page[top : top + height, left : left + width] = _inside(frame, width, height)
        if not running:
            return
        yield page[None].clone()


def _inside(frame: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Return a frame (H, W, 3) scaled to lie whole in a cell (height, width, 3), on black."""
    share = min(width / frame.shape[1], height / frame.shape[0])
    size = min(height, max(1, round(frame.shape[0] * share))), min(width, max(1, round(frame.shape[1] * share)))
    scaled = F.interpolate(frame.movedim(-1, 0)[None], size, mode="bicubic", antialias=True, align_corners=False)
    left, top = (width - size[1]) // 2, (height - size[0]) // 2
    cell = torch.zeros(height, width, 3)
    cell[top : top + size[0], left : left + size[1]] = scaled[0].movedim(0, -1).clamp(0, 1)
    return cell


def _label(text: str, width: int) -> torch.Tensor:
    """Return a strip (STRIP, width, 3) with a text, cut off with dots where it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, STRIP))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(STRIP * 0.55)
    shown = text
    while shown and draw.textlength(shown + ("…" if shown != text else ""), font) > width - 8:
        shown = shown[:-1]
    draw.text((width / 2, STRIP / 2), shown + ("…" if shown != text else ""), "white", font, anchor="mm")
    return torch.from_numpy(np.array(strip)).float() / 255


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)
