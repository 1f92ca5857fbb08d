"""A clip that goes on from another: the way that `auto` takes, and clips that are too short or broken."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from pipeline.long_clip.extend import clip_of_images, clip_of_latent, clip_of_source, extend_clip
from pipeline.lora.svi import has_svi_pair
from pipeline.models.condition import encode_clip
from pipeline.models.extension import svi_condition
from pipeline.request import AUTO, BOTH, HIGH, LOW, Lora, RequestError
from pipeline.segments import SVI
from pipeline.video.join_settings import CONFORM, JoinSettings
from pipeline.video.join_to_mp4 import join_to_mp4
from pipeline.video.save import Mp4
from pipeline.video.source import frames_source
from tests.support.pictures import enlarged

HIGH_FILE, LOW_FILE = "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH.safetensors", "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW.safetensors"


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """IMAGE (9, 32, 48, 3) of a picture that changes."""
    return enlarged(torch.rand(9, 3, 5, 6, generator=torch.Generator().manual_seed(5)), 32, 48)


@pytest.mark.parametrize(("loras", "expected"), [
    ([Lora(HIGH_FILE), Lora(LOW_FILE)], True),
    ([Lora(f"wan\\high\\{HIGH_FILE}"), Lora(f"https://hub.example/low/{LOW_FILE}?download=true")], True),
    ([Lora("SVI_v2.safetensors", expert=HIGH), Lora("SVI_v2.safetensors", expert=LOW)], True),
    ([Lora("SVI_v2_PRO.safetensors")], True),
    ([Lora(HIGH_FILE)], False),
    ([Lora(HIGH_FILE), Lora(LOW_FILE, expert=HIGH)], False),
    ([Lora(HIGH_FILE), Lora(LOW_FILE, scale=0.0)], False),
    ([Lora("svi/camera_push.safetensors", expert=BOTH)], False),
    ([Lora("https://svi.example/camera_push.safetensors?by=svi")], False),
    ([], False),
])
def test_auto_is_svi_when_both_experts_get_its_pair(loaded: tuple, frames: torch.Tensor, loras: list[Lora],
                                                    expected: bool) -> None:
    assert has_svi_pair((lora, lora.source) for lora in loras) is expected
    extended = extend_clip(loaded[2], clip_of_images(frames), AUTO, 5, 9, loras=loras)
    assert extended.notes[0].startswith("Goes on by SVI:" if expected else "Goes on by frames:")
    chosen = extend_clip(loaded[2], clip_of_images(frames), SVI, 5, 9, loras=loras)
    assert any("no LoRA pair with SVI in its names" in note for note in chosen.notes) is not expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_latent_that_holds_no_numbers_is_refused(loaded: tuple, value: float) -> None:
    latents = torch.zeros(1, 16, 3, 4, 6)
    latents[0, 0, -1, 0, 0] = value
    with pytest.raises(RequestError, match=r"^The latent holds values that are not numbers \(NaN or infinite\)"):
        clip_of_latent(loaded[2], {"samples": latents})


def test_a_video_in_memory_is_checked_as_frames_are(frames: torch.Tensor) -> None:
    for images, said in ((frames * 255, "^The video holds values up to 25"),
                         (torch.cat([frames, frames[..., :1]], -1), "^The video has the shape")):
        with pytest.raises(RequestError, match=said):
            clip_of_source(frames_source(images, Fraction(16), "clip"))


@pytest.mark.parametrize(("count", "overlap"), [(1, 1), (3, 3), (5, 5), (9, 5)])
def test_svi_shares_no_more_frames_than_there_are(loaded: tuple, frames: torch.Tensor, tmp_path: Path, count: int,
                                                  overlap: int) -> None:
    """What Extend Clip says of the overlap is what Join Clips takes."""
    vae, before = loaded[2], frames[:count]
    extended = extend_clip(vae, clip_of_images(before), SVI, 5, 9)
    assert extended.overlap == overlap and extended.notes[0].startswith(f"Goes on by SVI: the first {overlap} of 9")
    clips = [frames_source(images, Fraction(16), name) for name, images in (("old", before), ("new", frames))]
    settings = JoinSettings(extended.overlap, new_shots=frozenset())
    _, report = join_to_mp4(Mp4(lambda: tmp_path / "joined.mp4"), clips, settings, CONFORM, lambda done, total: None,
                            lambda: None, lambda text: None)
    assert json.loads(report)["frames"] == count + 9 - overlap


def test_a_picture_is_the_anchor_of_the_first_clip_by_svi(loaded: tuple, frames: torch.Tensor) -> None:
    """As Long Clip begins by SVI; the same picture as the last latent too would stand still for four frames."""
    vae, picture = loaded[2], frames[:1]
    latents = encode_clip(vae, picture)
    for clip in (clip_of_images(picture), clip_of_latent(vae, {"samples": latents})):
        extended = extend_clip(vae, clip, SVI, 5, 9)
        assert torch.equal(extended.condition.latents, svi_condition(latents, None, 9).latents)
        assert (extended.overlap, len(extended.known)) == (1, 1)
    anchored = extend_clip(vae, clip_of_images(picture), SVI, 5, 9, anchor=frames[4:5])
    anchor = encode_clip(vae, frames[4:5])
    assert torch.equal(anchored.condition.latents, svi_condition(anchor, latents, 9).latents)
    assert anchored.overlap == 1
