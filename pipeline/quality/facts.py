"""One pass over a clip's frames: the numbers of each frame and of its neighbours that all measures are made of.

Frames are looked at in at most SIDE pixels; three of them and the first are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from .overlap import small as tiny

SIDE = 256
"""Pixels of the longer side."""
SHIFT_SIDE = 128
"""Of the frames between which a shift is measured."""
BLOCK = 16
"""Pixels of the blocks in which grain averages out."""
KEY = 4
"""Frames between two that are kept for measures over the whole clip."""
_LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


@dataclass
class ClipFacts:
    """Numbers of a clip of N frames; each list has N values, one a frame. What needs a frame before is 0 without."""

    width: int = 0
    """Of the whole frames, in pixels."""
    finite: list[bool] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    """Of luma, 0..1; so is all that follows."""
    deviation: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    """Mean absolute difference to the frame before."""
    second_step: list[float] = field(default_factory=list)
    """The same to the frame before that."""
    residual: list[float] = field(default_factory=list)
    """Mean absolute difference to the mean of the frames on both sides."""
    flicker: list[float] = field(default_factory=list)
    """The same of the median block."""
    from_first: list[float] = field(default_factory=list)
    """Mean absolute difference to the first frame."""
    likeness: list[float] = field(default_factory=list)
    """Correlation with the frame before, -1..1, where both show the same content; 1 where either shows nothing."""
    shift: list[tuple[float, float]] = field(default_factory=list)
    """Of the content since the frame before, right and down, in widths of the frame."""
    first: torch.Tensor | None = None
    """The first frame (h, w, 3), of at most SIDE pixels."""
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    """Every KEY-th frame and the last one, of at most SHIFT_SIDE pixels, under their indices."""

    def __len__(self) -> int:
        return len(self.mean)


def gather(frames: Iterable[torch.Tensor]) -> ClipFacts:
    """Return the facts of frames (H, W, 3), float 0..1. Values that are not numbers count as black."""
    facts, recent = ClipFacts(), []
    blocks: list[torch.Tensor] = []
    last = None
    for frame in frames:
        facts.width = frame.shape[1]
        shown = smaller(torch.nan_to_num(frame.float(), 0.0, 1.0, 0.0).clamp(0, 1), SIDE)
        luma = shown @ _LUMA
        facts.finite.append(bool(frame.isfinite().all()))
        facts.mean.append(float(luma.mean()))
        facts.deviation.append(float(luma.std(correction=0)))
        recent = [*recent[-2:], luma]
        blocks = [*blocks[-2:], F.avg_pool2d(luma[None], min(BLOCK, *luma.shape))[0]]
        _compare(facts, recent, blocks)
        if facts.first is None:
            facts.first = shown
        facts.from_first.append(float((luma - facts.first @ _LUMA).abs().mean()))
        last = shown
        if (len(facts) - 1) % KEY == 0:
            facts.keys[len(facts) - 1] = smaller(shown, SHIFT_SIDE)
    if last is not None:
        facts.keys[len(facts) - 1] = smaller(last, SHIFT_SIDE)
    return facts


def smaller(frame: torch.Tensor, side: int) -> torch.Tensor:
    """Return a frame (H, W, 3) of at most `side` pixels a side."""
    share = side / max(frame.shape[:2])
    if share >= 1:
        return frame
    size = tuple(max(1, round(length * share)) for length in frame.shape[:2])
    return F.interpolate(frame.movedim(-1, 0)[None], size, mode="bilinear", antialias=True,
                         align_corners=False)[0].movedim(0, -1)


def _compare(facts: ClipFacts, recent: list[torch.Tensor], blocks: list[torch.Tensor]) -> None:
    """Add what the newest frame is beside the ones before."""
    if len(recent) < 2:
        facts.step.append(0.0)
        facts.likeness.append(1.0)
        facts.shift.append((0.0, 0.0))
    else:
        facts.step.append(float((recent[-1] - recent[-2]).abs().mean()))
        facts.shift.append(_shift(recent[-2], recent[-1]))
        facts.likeness.append(_likeness(recent[-2], recent[-1], facts.shift[-1]))
    facts.residual.append(0.0)
    facts.flicker.append(0.0)
    facts.second_step.append(0.0)
    if len(recent) == 3:
        facts.second_step[-1] = float((recent[2] - recent[0]).abs().mean())
        facts.residual[-2] = float((recent[1] - (recent[0] + recent[2]) / 2).abs().mean())
        facts.flicker[-2] = float((blocks[1] - (blocks[0] + blocks[2]) / 2).abs().median())


def _likeness(before: torch.Tensor, after: torch.Tensor, shift: tuple[float, float]) -> float:
    """Return the correlation of two frames in small, as they lie or shifted, whichever is larger.

    Over a quarter of the frame no shift is believed: the little that is left in both is alike by chance.
    """
    before, after = (tiny(frame[..., None].expand(-1, -1, 3)) for frame in (before, after))
    height, width = before.shape
    right, down = (round(length * width) for length in shift)
    if abs(right) > width // 4 or abs(down) > height // 4:
        return _correlation(before, after)
    moved = _correlation(before[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)],
                         after[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)])
    return max(_correlation(before, after), moved)


def _correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one - one.mean(), other - other.mean()
    spread = (one.square().mean() * other.square().mean()).sqrt()
    return float((one * other).mean() / spread) if spread > 1e-4 else 1.0


def _shift(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """Return the shift of the content by phase correlation, right and down, in widths, to a fraction of a pixel."""
    before, after = (smaller(frame[..., None], SHIFT_SIDE)[..., 0] for frame in (before, after))
    height, width = before.shape
    window = torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))
    one, other = (torch.fft.rfft2((frame - frame.mean()) * window) for frame in (before, after))
    cross = other * one.conj()
    # Of equal weight, as in plain phase correlation, frequencies that are noise would outvote the others.
    peaks = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-9).sqrt(), s=(height, width))
    row, column = divmod(int(peaks.argmax()), width)
    across = (column + _peak(peaks[row], column) + width // 2) % width - width // 2
    down = (row + _peak(peaks[:, column], row) + height // 2) % height - height // 2
    return across / width, down / width


def _peak(values: torch.Tensor, at: int) -> float:
    """Return where the peak of a parabola through three neighbours lies, from -0.5 to 0.5 beside `at`."""
    left, middle, right = (float(values[(at + offset) % len(values)]) for offset in (-1, 0, 1))
    bend = left - 2 * middle + right
    return 0.0 if bend >= 0 else max(-0.5, min(0.5, 0.5 * (left - right) / bend))
