"""A picture of latents under way, without a VAE.

Raw and normalised Wan latents.

A ComfyUI LATENT holds what the VAE's encoder gives ("raw"); the transformer works on (raw - mean) / std with the
statistics of the Wan VAE, those of AutoencoderKLWan's configuration and of ComfyUI's latent_formats.Wan21.
"""

from __future__ import annotations

import torch
from PIL import Image

CHANNELS = 16
MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)


def _statistics(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(v, device=like.device, dtype=like.dtype).view(1, -1, 1, 1, 1) for v in (MEAN, STD))


def normalise(raw: torch.Tensor) -> torch.Tensor:
    """Raw latents (B, 16, T, h, w) -> zero mean and unit variance over the VAE's training data.

    Times 1 / std, as diffusers has it: to divide instead changes last bits, which sampling makes 50 times as large.
    """
    mean, std = _statistics(raw)
    return (raw - mean) * (1.0 / std)


def denormalise(latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalise`."""
    mean, std = _statistics(latents)
    return latents * std + mean

ENLARGED = 4
"""Pixels a latent, of the eight that the VAE would give."""


def film_strip(clean: torch.Tensor, factors: torch.Tensor, bias: torch.Tensor) -> Image.Image:
    """The clip's begin, middle and end side by side, of clean, normalised latents (1, 16, T, h, w).

    A latent's colours are `latents @ factors + bias`, -1..1, of the shapes (16, 3) and (3,), as ComfyUI's previews have
    them (comfy/latent_formats.py, latent_rgb_factors).
    """
    frames = clean[0][:, [0, clean.shape[2] // 2, clean.shape[2] - 1]].float().cpu()
    rgb = torch.einsum("cfhw,cd->hfwd", frames, factors) + bias
    strip = Image.fromarray(rgb.flatten(1, 2).add(1).mul(127.5).clamp(0, 255).byte().numpy())
    return strip.resize((strip.width * ENLARGED, strip.height * ENLARGED), Image.Resampling.BILINEAR)
