"""The gate: a clean clip passes, and each fault is found by its own measure."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from bench.clip_check import FAULTS
from pipeline.motion.align import Move, align
from pipeline.quality.check import LIMITS, check_clip
from pipeline.request import RequestError
from pipeline.video.source import check_scale, frames_source

CAT = Path(__file__).parents[2] / "workflows" / "input" / "wan22_cat.jpg"
SIDE, FRAMES = 128, 33


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    with Image.open(CAT) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB").resize((300, 200)), np.float32) / 255)


@pytest.fixture(scope="module")
def pan(photo: torch.Tensor) -> torch.Tensor:
    """A camera that goes 1.2 pixels a frame to the right, (F, SIDE, SIDE, 3)."""
    frames = []
    for x in torch.arange(FRAMES) * 1.2:
        whole = int(x)
        window = torch.lerp(photo[30:158, whole : whole + SIDE], photo[30:158, whole + 1 : whole + 1 + SIDE],
                            float(x) - whole)
        frames.append(window)
    return torch.stack(frames)


def test_a_clean_clip_passes_and_its_camera_is_told(pan: torch.Tensor) -> None:
    verdict = check_clip(pan, pan[:1])
    assert verdict.passed and verdict.score > 0.5 and verdict.failing_frames == []
    report = verdict.report(16.0)
    assert report["content_moves"]["right"] == pytest.approx(-1.2 * 16, rel=0.1)
    assert abs(report["content_moves"]["down"]) < 1 and report["content_moves"]["zoom"] == pytest.approx(1, abs=0.02)
    assert set(report["measures"]) == set(LIMITS) and report["smoothness"] > 0.4


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_trips_its_own_measure(pan: torch.Tensor, fault: str) -> None:
    make, own, natural = FAULTS[fault]
    verdict = check_clip(make(pan), pan[:1])
    assert own in verdict.failed and set(verdict.failed) <= {own, *natural}, verdict.failed
    assert verdict.score < 0.5 and verdict.report(16.0)["pass"] is False


@pytest.mark.parametrize("harmless", [
    lambda clip: clip[:1].expand(FRAMES, -1, -1, -1),
    lambda clip: (clip[:1] + 0.04 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1),
    lambda clip: clip * torch.linspace(1, 0, FRAMES)[:, None, None, None],
    lambda clip: clip[:1] * torch.linspace(0, 1, FRAMES)[:, None, None, None],
], ids=["a picture", "grain under a still camera", "fade to black", "fade from black"])
def test_what_is_no_fault_passes(pan: torch.Tensor, harmless: Callable[[torch.Tensor], torch.Tensor]) -> None:
    verdict = check_clip(harmless(pan))
    assert verdict.passed, verdict.failed


def test_where_a_fault_is_and_what_a_picture_says(pan: torch.Tensor) -> None:
    make, _, _ = FAULTS["three black frames"]
    assert check_clip(make(pan)).failing_frames == [20, 21, 22]
    make, _, _ = FAULTS["a frame that is no numbers"]
    assert check_clip(make(pan)).failing_frames == [9]
    first_black = torch.cat([torch.zeros_like(pan[:1]), pan[1:]])
    assert check_clip(first_black).failed == ["broken"]
    other = F.interpolate(torch.rand(1, 3, 8, 8), (64, 64)).movedim(1, -1)
    verdict = check_clip(pan, other)
    assert verdict.failed == ["start"] and "the first frame is not the picture" in verdict.described()
    reddening, _, _ = FAULTS["a tint that grows"]
    assert check_clip(reddening(pan), colours_may_change=True).passed
    assert check_clip(pan[:1]).passed and check_clip(pan[:2]).passed
    assert check_clip(pan[:, :5, :5]).report(16.0)["content_moves"]["right"] == 0  # too small to be measured


@pytest.mark.parametrize(("change", "said"), [
    (lambda pan: pan * 2 - 1, "The clip holds values down to"), (lambda pan: pan * 255, "The clip holds values up to"),
    (lambda pan: (pan * 255).byte(), "The clip holds whole numbers"),
])
def test_a_clip_of_another_scale_is_not_judged(pan: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor],
                                               said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_scale(frames_source(change(pan), Fraction(16), "The clip"))


def test_frames_that_are_not_numbers_are_judged_and_have_not_moved(pan: torch.Tensor) -> None:
    broken = pan.clone()
    broken[5] = float("nan")
    check_scale(frames_source(broken, Fraction(16), "The clip"))
    nothing = torch.full((40, 60), float("nan"))
    assert align(nothing, nothing) == Move()
