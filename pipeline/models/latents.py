"""Convert Wan latents between raw and normalised, and to a rough preview without a VAE.

A ComfyUI LATENT holds raw latents, the output of the VAE's encoder; the transformer works on (raw - mean) / std with
the statistics of the Wan VAE, as in AutoencoderKLWan's configuration and ComfyUI's latent_formats.Wan21.
"""

from __future__ import annotations

import torch
from PIL import Image

CHANNELS = 16
MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
PREVIEW_SCALE = 4
"""Pixels a side for each latent of a preview; the VAE would decode 8."""


def _statistics(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(v, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1) for v in (MEAN, STD))


def normalise(raw: torch.Tensor) -> torch.Tensor:
    """Normalise raw latents (B, 16, T, h, w) to zero mean and unit variance over the VAE's training data.

    It multiplies by 1 / std, as diffusers does: dividing changes last bits, which sampling enlarges 50 times.
    """
    mean, std = _statistics(raw)
    return (raw - mean) * (1.0 / std)


def denormalise(latents: torch.Tensor) -> torch.Tensor:
    """Convert normalised latents (B, 16, T, h, w) to raw ones: the inverse of `normalise`."""
    mean, std = _statistics(latents)
    return latents * std + mean


def film_strip(clean: torch.Tensor, factors: torch.Tensor, bias: torch.Tensor) -> Image.Image:
    """Return the clip's first, middle and last frame side by side, from clean normalised latents (1, 16, T, h, w).

    A latent's colours are `latents @ factors + bias`, -1..1, with factors (16, 3) and bias (3,), as in ComfyUI's
    previews (comfy/latent_formats.py, latent_rgb_factors).
    """
    frames = clean[0][:, [0, clean.shape[2] // 2, clean.shape[2] - 1]].float().cpu()
    rgb = torch.einsum("cfhw,cd->hfwd", frames, factors) + bias
    strip = Image.fromarray(rgb.flatten(1, 2).add(1).mul(127.5).clamp(0, 255).byte().numpy())
    return strip.resize((strip.width * PREVIEW_SCALE, strip.height * PREVIEW_SCALE), Image.Resampling.BILINEAR)
