"""Latents of a clip -> its frames, with our VAE or one of ComfyUI's own loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .latents import CHANNELS
from .request import RequestError
from .video.wan_vae import FRAMES_A_LATENT, WanVAE


def count_frames(latent: dict[str, Any]) -> int:
    """Frames that a LATENT of raw latents (B, 16, T, h, w) decodes to, of all B clips.

    Raises RequestError for latents of another model.
    """
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise RequestError(f"The latent has the shape {tuple(samples.shape)}; a Wan 2.2 A14B clip has (1, {CHANNELS}, "
                           "time, height, width). Connect the Wan 2.2 Sampler.")
    return samples.shape[0] * (FRAMES_A_LATENT * (samples.shape[2] - 1) + 1)


def decode_frames(vae: Any, latent: dict[str, Any], on_piece: Callable[[int, int], None]) -> torch.Tensor:
    """LATENT of raw latents (B, 16, T, h, w) -> IMAGE (B * F, H, W, 3), float32 0..1, F = 4 (T - 1) + 1.

    Raises RequestError for latents of another model.
    """
    count_frames(latent)
    samples = latent["samples"]
    clips = vae.decode(samples, on_piece) if isinstance(vae, WanVAE) else vae.decode(samples)
    return clips.reshape(-1, *clips.shape[-3:])


def stream_frames(vae: Any, latent: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The frames of `decode_frames` in pieces (f, H, W, 3), of a few frames with our VAE, of a clip with ComfyUI's.

    Raises RequestError for latents of another model.
    """
    count_frames(latent)
    for clip in latent["samples"].split(1):
        if isinstance(vae, WanVAE):
            yield from vae.stream(clip)
        else:
            decoded = vae.decode(clip)
            yield decoded.reshape(-1, *decoded.shape[-3:])
