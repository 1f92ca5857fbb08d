"""Peak memory of the parts of a clip at full size, on a CUDA device that is not there."""

from __future__ import annotations

import torch

from pipeline.models.condition import known_ends
from pipeline.models.expert import Expert
from pipeline.models.vae import WanVAE
from pipeline.models.vae_decoder import decode_pieces
from pipeline.sampling.denoise import velocity_of
from pipeline.sampling.hooks import PAIR, POSITIVE, ModelInputs
from pipeline.sampling.sampler import pass_bytes
from tests.support.fake_cuda import DEVICE, FakeCuda, Peak

SIZES = {"480p": (832, 480), "720p": (1280, 720)}
TEXT = (1, 512, 4096)


def latents_of(width: int, height: int, num_frames: int) -> torch.Tensor:
    """Return latents of zeros, (1, 16, T, h, w), on the CPU."""
    return torch.zeros(1, 16, (num_frames - 1) // 4 + 1, height // 8, width // 8)


def pass_peak(gpu: FakeCuda, expert: Expert, latents: torch.Tensor, *, batched: bool = False) -> Peak:
    """Measure one pass through an expert, of one text or, `batched`, of both, beside its weights."""
    batch = 2 if batched else 1
    shape = (batch, *latents.shape[1:])
    expert.resident.load_to_device(pass_bytes(expert, shape), expert.patches)
    condition = known_ends(latents).channels()
    with gpu.peak() as peak, torch.no_grad():
        branch = PAIR if batched else POSITIVE
        texts = {branch: torch.zeros(batch, *TEXT[1:]).to(DEVICE, expert.compute_dtype)}
        velocity_of(expert.model, texts)(latents.expand(shape).to(DEVICE), torch.tensor(900.0).to(DEVICE), branch,
                                         ModelInputs(condition.to(DEVICE)))
    return peak


def encode_peak(gpu: FakeCuda, vae: WanVAE, width: int, height: int) -> Peak:
    """Measure encoding a clip; three pieces are as good as all."""
    vae.resident.load_to_device(0)
    with gpu.peak() as peak:
        vae.encode(torch.zeros(9, height, width, 3))
    return peak


def decode_peak(gpu: FakeCuda, vae: WanVAE, width: int, height: int, free: int) -> tuple[Peak, int, int]:
    """Measure decoding three pieces in the tiles that `free` bytes allow: the peak, the caches in bytes, the tiles."""
    vae.resident.load_to_device(0)
    latents = latents_of(width, height, 9)
    grid = vae.decode_grid(*latents.shape[-2:], free)
    with gpu.peak() as peak, torch.no_grad():
        pieces = decode_pieces(vae.resident.module, latents, grid, DEVICE, vae.dtype)
        caches = [gpu.live - peak.before for _ in pieces][-1]
    return peak, caches, len(list(grid.tiles()))


