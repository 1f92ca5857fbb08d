"""Bring the colours of a clip to those of another before it: mean and deviation in L*a*b*.

That is the colour transfer of Reinhard et al. ("Color Transfer between Images", 2001), by a strength.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..quality.lab import lab_to_rgb, rgb_to_lab
from .join_settings import JOINT, OFF

LEAST_DEVIATION = 0.5
"""In L*a*b*; a channel that is flatter has no contrast to match."""
MOST_GAIN = 1.5
"""Contrast is raised at most by this factor, and lowered by its inverse: more would show noise."""


@dataclass(frozen=True)
class LabStatistics:
    """Mean and standard deviation of the L*, a* and b* of a frame's pixels, (3,) each."""

    mean: torch.Tensor
    deviation: torch.Tensor


def colour_statistics(frame: torch.Tensor) -> LabStatistics:
    """Return the statistics of a frame (H, W, 3), float 0..1, or of several (..., H, W, 3) together."""
    lab = rgb_to_lab(frame.float()).reshape(-1, 3)
    return LabStatistics(lab.mean(0), lab.std(0, correction=0))


def match_colours(frames: torch.Tensor, reference: LabStatistics, strength: float = 1.0, way: str = JOINT,
                  measured: LabStatistics | None = None) -> torch.Tensor:
    """Return frames (N, H, W, 3), float 0..1, with their colours brought to the reference.

    reference: of the last frame before the joint. strength: 0 changes nothing, 1 all. way: one of join_settings.WAYS.
    measured, used by JOINT alone: the statistics of this clip where it shows the same moment as the reference, by
    default those of the first of `frames`; give it for the later pieces of a clip that comes in pieces.
    """
    if strength == 0 or way == OFF:
        return frames
    if way == JOINT:
        measured = measured or colour_statistics(frames[0])
    return torch.stack([_transfer(frame, measured or colour_statistics(frame), reference, strength)
                        for frame in frames])


def _transfer(frame: torch.Tensor, measured: LabStatistics, reference: LabStatistics, strength: float) -> torch.Tensor:
    gain = reference.deviation.clamp(min=LEAST_DEVIATION) / measured.deviation.clamp(min=LEAST_DEVIATION)
    gain = gain.clamp(1 / MOST_GAIN, MOST_GAIN)
    lab = rgb_to_lab(frame)
    matched = (lab - measured.mean) * gain + reference.mean
    return lab_to_rgb(torch.lerp(lab, matched, strength))
