"""Decode latents with AutoencoderKLWan as a stream of frames, in one tile or in several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from .tiles import TileGrid, blend_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

FRAMES_A_LATENT = 4
PIXELS_A_LATENT = 8
PIXELS_A_PIECE = 1 << 18
"""Pixels times frames of a piece: of small frames many are decoded at once, for speed; from 256x256 on, 4."""


def decode_pieces(vae: AutoencoderKLWan, latents: torch.Tensor, grid: TileGrid, device: torch.device,
                  dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Decode raw latents (1, 16, T, h, w); yield IMAGE pieces (f, H, W, 3), float32 0..1, on the CPU, in order.

    All tiles of a piece are decoded before the next piece, each tile with its own cache, so that memory does not grow
    with the clip.
    """
    tiles = list(grid.tiles())
    caches: list[list[Any]] = [[None] * vae._cached_conv_counts["decoder"] for _ in tiles]
    weights = [blend_weights(grid, tile, PIXELS_A_LATENT) for tile in tiles]
    height, width = (side * PIXELS_A_LATENT for side in latents.shape[-2:])
    for start, count in piece_ranges(latents.shape[2], tiles[0].height * tiles[0].width * PIXELS_A_LATENT**2):
        joined = torch.zeros(count * FRAMES_A_LATENT if start else 1, height, width, 3)
        for n, tile in enumerate(tiles):
            z = latents[:, :, start : start + count, tile.top : tile.top + tile.height,
                        tile.left : tile.left + tile.width]
            cache, caches[n] = _moved(caches[n], device), []  # a second list would keep what the decoder replaces
            frames = vae.decoder(vae.post_quant_conv(z.to(device, dtype)), feat_cache=cache, feat_idx=[0],
                                 first_chunk=start == 0)
            caches[n] = cache if grid.caches_stay else _moved(cache, torch.device("cpu"))
            top, left = tile.top * PIXELS_A_LATENT, tile.left * PIXELS_A_LATENT
            part = joined[:, top : top + frames.shape[3], left : left + frames.shape[4]]
            part.addcmul_(_to_image(frames[0]), weights[n])
        yield joined


def piece_ranges(latents: int, pixels: int) -> Iterator[tuple[int, int]]:
    """Yield (first latent, number of latents) of each piece: frame 0 alone, then as many as PIXELS_A_PIECE allows."""
    yield 0, 1
    length = max(1, PIXELS_A_PIECE // (FRAMES_A_LATENT * pixels))
    for start in range(1, latents, length):
        yield start, min(length, latents - start)


def _moved(cache: list[Any], device: torch.device) -> list[Any]:
    """Return a decoder's cache on another device; beside tensors it holds None and marker strings."""
    return [entry.to(device) if isinstance(entry, torch.Tensor) else entry for entry in cache]


def _to_image(frames: torch.Tensor) -> torch.Tensor:
    """Convert frames (3, F, H, W), -1..1, to IMAGE (F, H, W, 3), float32 0..1, on the CPU."""
    return frames.permute(1, 2, 3, 0).float().add(1).div(2).clamp(0, 1).cpu()
