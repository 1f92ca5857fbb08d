"""Conditions that go on from a clip: equal to the published formula, and known where they should be."""

from __future__ import annotations

import pytest
import torch

from pipeline.models import load as bundled
from pipeline.models.condition import encode_clip, encode_first_frame
from pipeline.models.extension import end_latent, frames_condition, svi_condition
from pipeline.models.host import plain_host
from pipeline.models.latents import normalise
from pipeline.models.vae import WanVAE, load_vae
from pipeline.request import RequestError
from tests.support.comfy_in_process import import_comfyui
from tests.support.pictures import enlarged

WIDTH, HEIGHT = 48, 32


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return WanVAE(*load_vae(bundled.DEMO_VAE, plain_host()))


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """Thirteen frames of soft blobs that change, IMAGE."""
    ends = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    return enlarged(torch.stack([ends[0].lerp(ends[1], t / 12) for t in range(13)]), HEIGHT, WIDTH)


def published(anchor: torch.Tensor, previous: torch.Tensor | None, length: int, motion_latent_count: int = 1,
              ) -> torch.Tensor:
    """What the model is given by WanImageToVideoSVIPro of kijai/ComfyUI-KJNodes (nodes/nodes.py), (1, 20, T, h, w).

    Its padding is process_out(zeros) behind the raw latents. ComfyUI normalises them (process_in), turns the mask,
    which is 0 where a frame is known, and takes it four times (comfy/model_base.py, WAN21.concat_cond).
    """
    import_comfyui()
    from comfy.latent_formats import Wan21

    total = (length - 1) // 4 + 1
    known = [anchor] if previous is None else [anchor, previous[:, :, -motion_latent_count:]]
    known = torch.cat(known, 2)
    padding = torch.zeros(1, 16, total - known.shape[2], *anchor.shape[-2:])
    raw = torch.cat([known, Wan21().process_out(padding)], 2)
    mask = torch.ones(1, 1, total, *anchor.shape[-2:])
    mask[:, :, :1] = 0
    return torch.cat([(1 - mask).repeat(1, 4, 1, 1, 1), Wan21().process_in(raw)], 1)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("length", [9, 33, 81])
def test_svi_is_the_published_formula(length: int, first: bool) -> None:
    noise = torch.Generator().manual_seed(length)
    anchor = torch.randn(1, 16, 1, 4, 6, generator=noise) * 3
    previous = None if first else torch.randn(1, 16, 9, 4, 6, generator=noise) * 3
    ours = svi_condition(anchor, None if first else previous[:, :, -1:], length).channels()
    theirs = published(anchor, previous, length)
    assert torch.equal(ours[:, :4], theirs[:, :4])
    assert (ours - theirs).abs().max() < 1e-6, "1 / std is multiplied there and divided here"
    padding = ours[:, 4:, 1 if first else 2 :]
    assert padding.shape[2] and not padding.any(), "zeros of normalised space, exactly"


def test_one_known_frame_is_a_first_frame(vae: WanVAE, frames: torch.Tensor) -> None:
    ours = frames_condition(vae, frames[-1:], 9)
    usual = encode_first_frame(vae, frames[-1:], WIDTH, HEIGHT, 9)
    assert torch.equal(ours.channels(), usual.channels())


@pytest.mark.parametrize("j", [1, 2, 3])
def test_known_frames_are_marked_and_encoded_as_a_clip_of_their_own(vae: WanVAE, frames: torch.Tensor, j: int) -> None:
    known = frames[-(1 + 4 * j) :]
    condition = frames_condition(vae, known, 21)
    assert condition.latent_shape == (1, 16, 6, HEIGHT // 8, WIDTH // 8)
    assert condition.mask[:, :, : j + 1].all() and not condition.mask[:, :, j + 1 :].any()
    alone = encode_clip(vae, known)  # causal: what follows changes nothing
    assert (condition.latents[:, :, : j + 1] - alone).abs().max() < 1e-4


def test_a_known_end_is_the_last_frame_of_the_last_latent(vae: WanVAE, frames: torch.Tensor) -> None:
    picture = frames[:1]
    usual = encode_first_frame(vae, frames[-1:], WIDTH, HEIGHT, 9, last_image=picture)
    by_frames = frames_condition(vae, frames[-1:], 9, picture)
    assert torch.equal(by_frames.channels(), usual.channels())
    end = end_latent(vae, picture, WIDTH, HEIGHT, 17)
    by_svi = svi_condition(torch.zeros(1, 16, 1, 4, 6), torch.ones(1, 16, 1, 4, 6), 17, end)
    assert by_svi.mask[0, :, -1, 0, 0].tolist() == [0, 0, 0, 1] and by_svi.mask[:, :, :1].all()
    assert torch.equal(by_svi.latents[:, :, -1:], end) and not by_svi.mask[:, :, 1:-1].any()
    assert not normalise(by_svi.latents)[:, :, 2:-1].any()


def test_nothing_left_to_make_is_refused(vae: WanVAE, frames: torch.Tensor) -> None:
    with pytest.raises(RequestError, match="num_frames is 13, of which 13 are known already; choose at least 17"):
        frames_condition(vae, frames, 13)
