"""Joints of two clips, measured: a camera that goes on, one that jumps, one that turns round, colours that jump."""

from __future__ import annotations

from pathlib import Path

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.quality.lab import lab_to_rgb, mean_lab, rgb_to_lab
from pipeline.quality.seams import Seam, measure_seam
from pipeline.video.colour_match import colour_statistics, match_colours
from pipeline.video.cross_fade import cross_fade
from pipeline.video.join_settings import EVERY_FRAME, JOINT, OFF

CAT = Path(__file__).parents[2] / "workflows" / "input" / "wan22_cat.jpg"
SIDE = 128


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A photograph, (3, H, W)."""
    with Image.open(CAT) as image:
        small = image.convert("RGB").resize((384, 256))
        return torch.from_numpy(np.asarray(small, np.float32) / 255).movedim(-1, 0)


def seen_from(picture: torch.Tensor, xs: list[float], y: float = 0.0) -> torch.Tensor:
    """Return frames (N, SIDE, SIDE, 3) of a camera whose middle is at xs, in pixels from the picture's."""
    _, height, width = picture.shape
    step = (torch.arange(SIDE) + 0.5) - SIDE / 2
    frames = []
    for x in xs:
        grid = torch.stack(torch.meshgrid((step + x) * 2 / width, (step + y) * 2 / height, indexing="xy"), -1)
        frames.append(F.grid_sample(picture[None], grid[None], align_corners=False, padding_mode="reflection")[0])
    return torch.stack(frames).movedim(1, -1)


def pan(speed: float, start: float = 0.0, frames: int = 17) -> list[float]:
    return [start + speed * n for n in range(frames)]


def joint(picture: torch.Tensor, before: list[float], after: list[float]) -> Seam:
    first = seen_from(picture, before)
    return measure_seam(first, seen_from(picture, after), first[0])


def test_a_camera_that_goes_on_leaves_no_seam(picture: torch.Tensor) -> None:
    seam = joint(picture, pan(1.3, -20), pan(1.3, -20 + 17 * 1.3))
    assert seam.ratio == pytest.approx(1, abs=0.2)
    for velocity in (seam.velocity_before, seam.velocity, seam.velocity_after):
        assert velocity == pytest.approx((-1.3, 0), abs=0.1)
    assert seam.jump < 0.5 and seam.colour_step < 0.5 and seam.warnings() == []
    assert "motion (-1.3, +0.0) px a frame before" in seam.describe().replace("-0.0)", "+0.0)")


def test_clips_of_one_frame_and_a_picture_that_stands_still(picture: torch.Tensor) -> None:
    still = joint(picture, [0.0] * 5, [0.0] * 5)
    assert still.ratio == 0 and still.warnings() == []
    one = joint(picture, [0.0], [0.0])
    assert one.velocity_before == one.velocity_after == one.velocity == pytest.approx((0, 0), abs=0.01)


@pytest.mark.parametrize(("after", "said"), [
    (pan(1.3, 9), "The picture jumps by 7.7 px at the joint"),
    (pan(-1.3), "The motion changes at the joint, from (-1.3"),
    (pan(0.0), "The motion changes at the joint"),
    (pan(1.3, 100), "The joint shows: the frames at it differ"),
])
def test_what_is_wrong_at_a_joint_is_said(picture: torch.Tensor, after: list[float], said: str) -> None:
    found = joint(picture, pan(1.3, -16 * 1.3), after).warnings()
    assert any(said in sentence for sentence in found), found


def test_colours_at_a_joint(picture: torch.Tensor) -> None:
    frames = seen_from(picture, pan(1.3, frames=34))
    warmer = (frames[17:] * torch.tensor([1.1, 1.0, 0.85])).clamp(0, 1)
    seam = measure_seam(frames[:17], warmer, frames[0])
    assert seam.colour_step > 4 and seam.drift == pytest.approx(seam.colour_step, abs=1)
    assert any("The colours jump by" in sentence for sentence in seam.warnings())
    matched = match_colours(warmer, colour_statistics(frames[16]))
    mended = measure_seam(frames[:17], matched, frames[0])
    assert mended.colour_step < 0.5 and mended.warnings() == []
    half = measure_seam(frames[:17], match_colours(warmer, colour_statistics(frames[16]), 0.5), frames[0])
    assert half.colour_step == pytest.approx(seam.colour_step / 2, rel=0.2)


def test_a_prompt_that_changes_colours_is_kept_or_undone(picture: torch.Tensor) -> None:
    """Everything turns red: the correction at the joint keeps that, the one of every frame undoes it."""
    frames = seen_from(picture, [0.0] * 9)
    share = torch.linspace(0, 0.5, 9)[:, None, None, None]
    reddening = torch.lerp(frames, torch.tensor([1.0, 0.1, 0.1]).expand_as(frames), share)
    bluish = (reddening * torch.tensor([0.9, 0.95, 1.0]))
    reference, wanted = colour_statistics(frames[0]), float((mean_lab(reddening[-1:]) - mean_lab(frames[:1])).norm())
    kept = match_colours(bluish, reference, way=JOINT)
    pieces = [match_colours(piece, reference, way=JOINT, measured=colour_statistics(bluish[0]))
              for piece in bluish.split(4)]
    assert torch.equal(kept, torch.cat(pieces))
    assert float((mean_lab(kept[-1:]) - mean_lab(frames[:1])).norm()) == pytest.approx(wanted, rel=0.15)
    undone = match_colours(bluish, reference, way=EVERY_FRAME)
    assert float((mean_lab(undone[-1:]) - mean_lab(frames[:1])).norm()) < 0.1 * wanted
    assert match_colours(bluish, reference, 0.0) is bluish and match_colours(bluish, reference, way=OFF) is bluish


def test_flat_frames_are_matched_without_noise() -> None:
    grey = torch.full((2, 8, 8, 3), 0.5) + torch.rand(2, 8, 8, 3) / 255
    matched = match_colours(grey, colour_statistics(torch.rand(8, 8, 3)))
    assert (matched.std((1, 2)) <= 2 * grey.std((1, 2))).all()


def test_lab_is_that_of_kornia_and_of_the_standard() -> None:
    pixels = torch.rand(64, 64, 3)
    pixels[:16] *= 0.04
    theirs = kornia.color.rgb_to_lab(pixels.movedim(-1, 0)).movedim(0, -1)
    torch.testing.assert_close(rgb_to_lab(pixels), theirs, atol=0.01, rtol=0)  # its matrix has fewer digits
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(pixels)), pixels, atol=1e-5, rtol=0)
    red = rgb_to_lab(torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(red, torch.tensor([53.24, 80.09, 67.20]), atol=0.01, rtol=0)  # brucelindbloom.com


def test_cross_fade_goes_evenly_and_a_faded_joint_is_measured_as_a_whole(picture: torch.Tensor) -> None:
    before, after = torch.zeros(3, 2, 2, 3), torch.ones(3, 2, 2, 3)
    assert cross_fade(before, after)[:, 0, 0, 0].tolist() == [0.25, 0.5, 0.75]
    frames = seen_from(picture, pan(1.0, frames=30))
    off = seen_from(picture, pan(1.0, 12, frames=18), y=3)  # shows the moments 12 to 29, three pixels off
    faded = torch.cat([cross_fade(frames[12:16], off[:4]), off[4:]])
    hard, soft = measure_seam(frames[:16], off[4:], frames[0]), measure_seam(frames[:12], faded, frames[0], faded=4)
    assert 1 < soft.ratio < 0.7 * hard.ratio
