"""A picture of latents under way, without a VAE."""

from __future__ import annotations

import torch
from PIL import Image

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
