"""The frames of one segment in matched colours, at the step from the frames it knows to its new ones."""

from __future__ import annotations

import pytest
import torch

from pipeline.long_clip.frames import JUST_NOTICEABLE, Colours, SegmentFrames
from pipeline.long_clip.plan import plan_long_clip
from pipeline.quality.lab import lab_to_rgb, mean_lab
from pipeline.segments import Extension, Segment
from pipeline.video.join_settings import EVERY_FRAME, JOINT, OFF

OVERLAP = Extension().overlap


def grey(lightness: float, count: int) -> torch.Tensor:
    """Frames (count, 16, 16, 3) around a mean lightness of L*a*b*."""
    lab = torch.zeros(count, 16, 16, 3)
    lab[..., 0] = lightness + torch.linspace(-5, 5, 16)
    return lab_to_rgb(lab)


@pytest.mark.parametrize(("way", "step", "left"), [
    (JOINT, 1.5, 0.0), (JOINT, -1.5, 0.0), (JOINT, 20.0, 20.0 - JUST_NOTICEABLE), (EVERY_FRAME, 20.0, 0.0),
    (OFF, 1.5, 1.5),
])
def test_a_small_step_to_the_new_frames_is_the_models_and_a_large_one_stays(way: str, step: float, left: float) -> None:
    planned = plan_long_clip([Segment("pan", 1, 33), Segment("pan", 2, 33)], Extension(), 64, 64).segments[1]
    decoded = torch.cat([grey(50, OVERLAP), grey(50 + step, 33 - OVERLAP)])
    segment = SegmentFrames([decoded], planned, grey(50, OVERLAP), Colours(1.0, way), OVERLAP)
    shown = mean_lab(torch.cat(list(segment.shown())))[:, 0]
    assert shown.tolist() == pytest.approx([50 + left] * len(shown), abs=0.05)
