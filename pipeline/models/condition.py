"""The condition of a clip: a mask of the frames that are known, and the latents of what they show.

The experts take it so: of a first frame, a clip that shows the picture and then grey (wan/image2video.py of
github.com/Wan-Video/Wan2.2); with a last frame, a second picture at its very end (diffusers,
WanImageToVideoPipeline.prepare_latents with last_image).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..request import RequestError, check_image, check_num_frames, check_size
from .latents import normalise
from .vae import WanVAE, check_vae


@dataclass(frozen=True)
class Condition:
    """Known frames of a clip; the content of a WAN22_FIRST_FRAME socket. Its T and size are the clip's."""

    latents: torch.Tensor
    """Raw, (1, 16, T, h, w): what the known frames show, and grey elsewhere."""
    mask: torch.Tensor
    """(1, 4, T, h, w): 1 where a frame is known, else 0; four channels since a latent holds four frames."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the clip's latents, (1, 16, T, h, w)."""
        return tuple(self.latents.shape)

    def channels(self) -> torch.Tensor:
        """Return what goes behind the noisy latents: (1, 20, T, h, w), the mask and the normalised latents."""
        return torch.cat([self.mask, normalise(self.latents)], 1)

    def window(self, start: int, stop: int) -> Condition:
        """Return the condition of the latent frames start..stop-1 alone."""
        return Condition(self.latents[:, :, start:stop], self.mask[:, :, start:stop])


def known_ends(latents: torch.Tensor, *, last: bool = False) -> Condition:
    """Return the condition of a known first frame, and with `last` of a known last one.

    latents: as Condition has them. Of the first latent all four mask channels are known, of the last one only the
    fourth, its last frame.
    """
    mask = torch.zeros_like(latents[:, :4])
    mask[:, :, 0] = 1
    if last:
        mask[:, 3, -1] = 1
    return Condition(latents, mask)


def crop_of(source_width: int, source_height: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the largest part in the middle of a picture that fills width x height."""
    scale = max(width / source_width, height / source_height)
    cut_width = min(source_width, max(1, round(width / scale)))
    cut_height = min(source_height, max(1, round(height / scale)))
    return (source_width - cut_width) // 2, (source_height - cut_height) // 2, cut_width, cut_height


def fit(image: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Scale IMAGE (1, H, W, 3) to fill width x height, cut off evenly what stands out; (1, height, width, 3)."""
    left, top, cut_width, cut_height = crop_of(image.shape[2], image.shape[1], width, height)
    cut = image[:, top : top + cut_height, left : left + cut_width]
    resized = torch.nn.functional.interpolate(cut.movedim(-1, 1), (height, width), mode="bicubic", antialias=True,
                                              align_corners=False)
    return resized.movedim(1, -1).clamp(0, 1)


def encode_first_frame(vae: Any, image: torch.Tensor | None, width: int, height: int, num_frames: int,
                       on_piece: Callable[[int, int], None] = lambda done, total: None,
                       last_image: torch.Tensor | None = None) -> Condition:
    """Encode the picture (IMAGE, one, opaque) with our VAE or with one of ComfyUI's own loaders.

    `last_image`, of the same kind, is the clip's last frame. Raises RequestError for a picture, size or frame count
    that cannot be used, before the VAE runs.
    """
    check_image(image)
    if last_image is not None:
        check_image(last_image, "last_image")
    check_size(width, height)
    check_num_frames(num_frames)
    check_vae(vae)
    clip = torch.full((num_frames, height, width, 3), 0.5)
    clip[:1] = fit(image.float().cpu(), width, height)
    if last_image is not None:
        clip[-1:] = fit(last_image.float().cpu(), width, height)
    return known_ends(encode_clip(vae, clip, on_piece), last=last_image is not None)


def encode_clip(vae: Any, clip: torch.Tensor, on_piece: Callable[[int, int], None] = lambda done, total: None,
                ) -> torch.Tensor:
    """Encode IMAGE (4n + 1, H, W, 3) to raw latents (1, 16, T, h, w), float32 on the CPU.

    Raises RequestError for the VAE of another model.
    """
    num_frames, height, width, _ = clip.shape
    latents = vae.encode(clip, on_piece) if isinstance(vae, WanVAE) else vae.encode(clip)
    expected = (1, 16, (num_frames - 1) // 4 + 1, height // 8, width // 8)
    if tuple(latents.shape) != expected:
        raise RequestError(f"The VAE gave latents of shape {tuple(latents.shape)}; Wan 2.2 A14B needs {expected}. "
                           "Use wan_2.1_vae.safetensors (16 channels, 8x8 pixels and 4 frames a latent).")
    return latents.float().cpu()
