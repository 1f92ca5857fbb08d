"""The streaming VAE against diffusers' own encode and decode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pipeline.models import load as bundled
from pipeline.models import vae_decoder
from pipeline.models.host import plain_host
from pipeline.models.tiles import Cuts
from pipeline.models.vae import TILE, WanVAE, load_vae


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    return WanVAE(*load_vae(bundled.DEMO_VAE, plain_host()))


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """A moving gradient, IMAGE (13, 32, 48, 3)."""
    t, y, x = torch.meshgrid(torch.arange(13) / 13, torch.arange(32) / 32, torch.arange(48) / 48, indexing="ij")
    return torch.stack([(x + t) % 1, y, (x * y + t) % 1], -1)


@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_pieces_are_exact(vae: WanVAE, clip: torch.Tensor, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """One latent at a time or all at once: diffusers' result, to rounding."""
    monkeypatch.setattr(vae_decoder, "PIXELS_A_PIECE", budget)
    module = vae.resident.module
    with torch.no_grad():
        expected = module.encode(clip.permute(3, 0, 1, 2)[None] * 2 - 1).latent_dist.mode()
        latents = vae.encode(clip)
        torch.testing.assert_close(latents, expected, atol=2e-4, rtol=1e-4)
        frames = module.decode(expected).sample[0].permute(1, 2, 3, 0).add(1).div(2)
        torch.testing.assert_close(vae.decode(expected)[0], frames, atol=2e-5, rtol=1e-4)


def test_shapes_and_progress(vae: WanVAE, clip: torch.Tensor) -> None:
    seen: list[tuple[int, int]] = []
    latents = vae.encode(clip, lambda done, total: seen.append((done, total)))
    assert latents.shape == (1, 16, 4, 4, 6)
    assert seen[-1] == (4, 4)
    frames = vae.decode(latents.repeat(2, 1, 1, 1, 1))
    assert frames.shape == (2, 13, 32, 48, 3)
    assert torch.equal(frames[0], frames[1])
    assert frames.min() >= 0 and frames.max() <= 1


def test_encoded_in_tiles(vae: WanVAE, clip: torch.Tensor) -> None:
    """As core's VAE Encode (Tiled) asks for it; in one tile it is the same."""
    smooth = torch.nn.functional.interpolate(clip[:5].movedim(-1, 1), (72, 96), mode="bilinear").movedim(1, -1)
    whole = vae.encode(smooth)
    one, tiled = (vae.encode_tiled(smooth, tile_x=side, tile_y=side, overlap=32, tile_t=64, overlap_t=8)
                  for side in (512, 64))
    assert torch.equal(one, whole)
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)
    assert (vae.decode(tiled) - vae.decode(whole)).abs().max() < 0.1


@pytest.mark.parametrize("overlap", [0, 2])
def test_tiles_that_divide_the_frame_evenly(vae: WanVAE, clip: torch.Tensor, overlap: int) -> None:
    """Core's tiled nodes allow an overlap of 0."""
    smooth = torch.nn.functional.interpolate(clip[:5].movedim(-1, 1), (128, 128), mode="bilinear").movedim(1, -1)
    whole = vae.encode(smooth)
    tiled = vae.encode_tiled(smooth, tile_x=64, tile_y=64, overlap=overlap * 8)
    assert (vae.decode(tiled) - vae.decode(whole)).abs().mean() < 0.02
    frames = vae.decode_tiled(whole, tile_x=8, tile_y=8, overlap=overlap)
    assert (frames - vae.decode(whole)).abs().mean() < 0.02


def test_encoding_in_tiles_is_told_piece_by_piece(vae: WanVAE, clip: torch.Tensor,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """So that Stop is heard, and the bar moves, after the memory ran out too."""
    honest, seen = WanVAE._encoded, []

    def short_of_memory(self: WanVAE, pixels: torch.Tensor, on_piece: Callable[[int, int], None]) -> torch.Tensor:
        if pixels.shape[2] > TILE:
            raise torch.OutOfMemoryError("no memory")
        return honest(self, pixels, on_piece)

    monkeypatch.setattr(WanVAE, "_encoded", short_of_memory)
    monkeypatch.setattr(vae, "cuts", Cuts())
    wide = torch.nn.functional.interpolate(clip[:5].movedim(-1, 1), (64, 512), mode="bilinear").movedim(1, -1)
    vae.encode(wide, lambda done, total: seen.append((done, total)))
    total = seen[-1][1]
    assert total >= 3 * 2 and seen == [(done, total) for done in range(1, total + 1)]
    assert vae.cuts.encode_in_tiles and not vae.cuts.is_anew, "nothing was encoded as a whole before"


def test_a_still_clip_has_one_latent(vae: WanVAE, clip: torch.Tensor) -> None:
    latents = vae.encode(clip[:1].expand(13, -1, -1, -1))
    torch.testing.assert_close(latents, latents[:, :, :1].expand_as(latents), atol=1e-3, rtol=0)


def test_reconstruction_is_recognisable(vae: WanVAE, clip: torch.Tensor) -> None:
    """bench/demo_model/evaluate.py measures it on pictures; here only that it is no noise."""
    smooth = clip.clone()
    smooth[..., 0] = smooth[..., 2] = smooth[..., 1]
    error = (vae.decode(vae.encode(smooth))[0] - smooth).pow(2).mean()
    assert error < 10**-2.2  # 22 dB
