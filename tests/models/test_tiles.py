"""Decoding in tiles: as few as the memory allows, of any length of clip, and joined without a seam."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.paths import ROOT
from pipeline.models import load as bundled
from pipeline.models.host import PlainResident, plain_host
from pipeline.models.tiles import OVERLAP, SIDE, Cuts, DecodeMemory, TileGrid, blend_weights, choose_grid, grid_of_size
from pipeline.models.vae import CACHE_BYTES_A_PIXEL, DECODE_BYTES_A_PIXEL, WanVAE, load_vae
from pipeline.request import RequestError

FULL_SIZE = DecodeMemory(DECODE_BYTES_A_PIXEL * 64, CACHE_BYTES_A_PIXEL * 64)
"""Of the real VAE, in 2 bytes."""
PICTURE = ROOT / "workflows" / "input" / "wan22_coffee.png"


class SmallDevice(PlainResident):
    """A device that has so many bytes free."""

    bytes_free = 1 << 40

    def available_bytes(self) -> int:
        return self.bytes_free


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    resident, dtype = load_vae(bundled.DEMO_VAE, plain_host())
    return WanVAE(SmallDevice(resident.module, torch.device("cpu")), dtype)


@pytest.fixture(scope="module")
def latents(vae: WanVAE) -> torch.Tensor:
    """Of a picture that moves to the right, 5 frames of 304x304."""
    with Image.open(PICTURE) as file:
        picture = torch.from_numpy(np.array(file.convert("RGB").resize((304, 304)))) / 255
    return vae.encode(torch.stack([picture.roll(3 * n, 1) for n in range(5)]))


@pytest.fixture(scope="module")
def whole(vae: WanVAE, latents: torch.Tensor) -> torch.Tensor:
    vae.resident.bytes_free = 1 << 40
    return vae.decode(latents)


@pytest.mark.parametrize(("size", "gigabytes", "count"), [
    ((60, 104), 6.0, 1), ((60, 104), 4.0, 2), ((60, 104), 2.0, 3), ((60, 104), 1.0, 6), ((90, 160), 12.0, 1),
    ((90, 160), 6.0, 2), ((160, 90), 6.0, 2), ((8, 12), 0.0, 1)])
def test_as_few_tiles_as_fit(size: tuple[int, int], gigabytes: float, count: int) -> None:
    """480p and 720p on the real VAE."""
    grid = choose_grid(*size, int(gigabytes * 1e9), FULL_SIZE)
    assert len(list(grid.tiles())) == count
    assert gigabytes == 0 or grid.bytes_needed(FULL_SIZE) <= gigabytes * 1e9


def test_the_smallest_when_nothing_fits() -> None:
    grid = choose_grid(90, 160, 0, FULL_SIZE)
    assert not grid.caches_stay
    assert all(tile.height <= SIDE and tile.width <= SIDE for tile in grid.tiles())
    assert grid.bytes_needed(FULL_SIZE) < 0.7e9


@pytest.mark.parametrize("grid", [
    choose_grid(90, 160, 0, FULL_SIZE), choose_grid(33, 40, 0, FULL_SIZE), choose_grid(90, 160, 10**9, FULL_SIZE),
    grid_of_size(60, 104, 20, 24, 5), grid_of_size(8, 8, 16, 16, 4)])
def test_tiles_cover_the_frame_and_sum_to_one(grid: TileGrid) -> None:
    height, width = (sum(parts[-1]) for parts in (grid.rows, grid.columns))
    total = torch.zeros(height * 8, width * 8, 1)
    for tile in grid.tiles():
        weights = blend_weights(grid, tile, 8)
        assert weights.min() > 0
        total[tile.top * 8 : (tile.top + tile.height) * 8, tile.left * 8 : (tile.left + tile.width) * 8] += weights
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    for parts in (grid.rows, grid.columns):
        for before, after in pairwise(parts):
            assert sum(before) - after[0] >= min(OVERLAP, 5)


@pytest.mark.parametrize("megabytes", [250, 0])
def test_no_seam_shows(vae: WanVAE, latents: torch.Tensor, whole: torch.Tensor, megabytes: int) -> None:
    """Nowhere a step of half a code of 8 bits more than in the frame decoded as one."""
    vae.resident.bytes_free = megabytes * 10**6
    need = DecodeMemory(DECODE_BYTES_A_PIXEL * 64 // 3, CACHE_BYTES_A_PIXEL * 64 // 3)  # base_dim 16, 4 bytes
    assert len(list(choose_grid(38, 38, int(megabytes * 0.9e6), need).tiles())) > 1
    difference = (vae.decode(latents) - whole)[0]
    assert -10 * difference.pow(2).mean().log10() > 60  # dB
    for axis in (1, 2):
        steps = difference.diff(dim=axis).abs()
        lines = steps.mean(dim=[n for n in range(4) if n != axis])
        assert lines.max() < 0.5 / 255


def test_memory_that_runs_out_all_the_same(vae: WanVAE) -> None:
    """Of the frames that were given before none comes twice."""
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = vae.decode(latents)
    calls = 0

    def fail(fails: set[int]) -> None:
        def hook(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls in fails:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        return hook

    vae.resident.bytes_free = 1 << 40
    for fails in ({2}, {1, 2}):
        calls = 0
        handle = vae.resident.module.decoder.register_forward_pre_hook(fail(fails))
        try:
            found = torch.cat(list(vae.stream(latents)))
        finally:
            handle.remove()
        torch.testing.assert_close(found, whole[0])
    calls = 0
    handle = vae.resident.module.decoder.register_forward_pre_hook(fail({1, 2, 3}))
    try:
        with pytest.raises(RequestError, match="too little memory on the device to decode even 256x256 pixels"):
            list(vae.stream(latents))
    finally:
        handle.remove()


@pytest.mark.parametrize(("fails", "is_anew"), [(1, False), (2, True)])
def test_a_clip_is_cut_anew_only_when_frames_of_it_were_given(vae: WanVAE, fails: int, is_anew: bool) -> None:
    """The device is as good as full from the call of the decoder that fails."""
    calls = 0

    def hook(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fails:
            vae.resident.bytes_free = 0
            raise torch.OutOfMemoryError("CUDA out of memory.")

    vae.resident.bytes_free = 1 << 40
    handle = vae.resident.module.decoder.register_forward_pre_hook(hook)
    in_two_calls = WanVAE(vae.resident, vae.dtype, Cuts())
    try:
        frames = sum(len(piece) for piece in in_two_calls.stream(torch.zeros(1, 16, 2, 4, 40)))
    finally:
        handle.remove()
    assert frames == 5
    assert in_two_calls.cuts.decode.columns == ((0, 24), (16, 24))
    assert in_two_calls.cuts.is_anew is is_anew
