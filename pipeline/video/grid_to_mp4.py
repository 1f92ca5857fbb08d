"""Write a grid of clips as an MP4."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..request import RequestError
from .grid import grid
from .mp4_writer import Written
from .save import Mp4, write_pieces
from .source import ClipSource, opaque


def read_labels(text: str, clips: int) -> list[str]:
    """Return a label for each clip from lines of text; empty ones where there are too few. Raises RequestError."""
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if len(lines) > clips:
        raise RequestError(f"There are {len(lines)} labels and {clips} clips. Give one line a clip.")
    return lines + [""] * (clips - len(lines))


def grid_to_mp4(mp4: Mp4, clips: Sequence[ClipSource], labels: Sequence[str], columns: int, cell: tuple[int, int],
                on_frame: Callable[[int, int], None], stop: Callable[[], None]) -> Written:
    """Write clips beside each other, as `grid` makes them, at the rate of `mp4`.

    Raises as `opaque` and `write_pieces` do.
    """
    rate = mp4.encoding.rate
    clips = [opaque(clip, mp4.encoding.alpha) for clip in clips]
    total = max(round(clip.expected * rate / clip.rate) for clip in clips)
    return write_pieces(mp4, grid(clips, labels, columns, cell, rate), total, "the clips are",
                        lambda done, total: on_frame(min(done, total), total), stop)
