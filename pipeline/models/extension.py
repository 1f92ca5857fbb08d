"""Conditions of clips that go on from another clip: from its last latent, or from its last frames.

SVI is how the LoRA pair of that name was trained (Stable Video Infinity 2.0 Pro, github.com/vita-epfl): an anchor
picture, the same for all clips, as latent 0; the last latent of the clip before, without a way through the VAE, as
latent 1; behind them zeros where others have an encoded grey. Only the anchor is marked as known. Its published form is
kijai/ComfyUI-KJNodes, nodes/nodes.py, WanImageToVideoSVIPro.

From frames: the last 1 + 4j frames are encoded again, and latents 0 to j are marked as known. Wan 2.2 was trained on
j = 0; it takes more (github.com/Wan-Video/Wan2.2/issues/142 and 257). Latents cannot be carried over here: a clip's
first latent holds one frame, its last ones four each.

A known last frame is the last of the four frames of the last latent, and is marked as that alone, as the model was
trained. To mark all four, as is done for SVI elsewhere, says that the clip stands still: it is reported to freeze.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..request import RequestError, check_num_frames
from .condition import Condition, encode_clip, fit, known_ends
from .latents import MEAN

GREY = 0.5


def svi_condition(anchor: torch.Tensor, last_latent: torch.Tensor | None, num_frames: int,
                  end: torch.Tensor | None = None) -> Condition:
    """Return the condition of a clip of the LoRA pair SVI.

    All raw, (1, 16, 1, h, w): anchor, the encoded picture; last_latent, of the clip before, None for the first; end,
    the last latent of a clip that ends with a known frame (`end_latent`), or None.
    """
    count = (num_frames - 1) // 4 + 1
    mean = torch.tensor(MEAN).view(1, -1, 1, 1, 1)  # normalised, that is zero
    latents = mean.expand(-1, -1, count, *anchor.shape[-2:]).clone()
    latents[:, :, :1] = anchor
    if last_latent is not None:
        latents[:, :, 1:2] = last_latent
    if end is not None:
        latents[:, :, -1:] = end
    return known_ends(latents, last=end is not None)


def end_latent(vae: Any, image: torch.Tensor, width: int, height: int, num_frames: int) -> torch.Tensor:
    """Return the last raw latent (1, 16, 1, h, w) of a grey clip that ends with the picture, IMAGE (1, H, W, 3)."""
    clip = torch.full((num_frames, height, width, 3), GREY)
    clip[-1:] = fit(image.float().cpu(), width, height)
    return encode_clip(vae, clip)[:, :, -1:]


def frames_condition(vae: Any, known: torch.Tensor, num_frames: int, last_image: torch.Tensor | None = None,
                     on_piece: Callable[[int, int], None] = lambda done, total: None) -> Condition:
    """Return the condition of a clip that begins with known frames (1 + 4j, H, W, 3), 0..1.

    last_image, IMAGE (1, H, W, 3), is its last frame. One known frame gives what First Frame gives. Raises
    RequestError for a number of frames that leaves nothing to make.
    """
    check_num_frames(num_frames)
    count, height, width, _ = known.shape
    if num_frames <= count:
        raise RequestError(f"num_frames is {num_frames}, of which {count} are known already; choose at least "
                           f"{count + 4}.")
    clip = torch.full((num_frames, height, width, 3), GREY)
    clip[:count] = known
    if last_image is not None:
        clip[-1:] = fit(last_image.float().cpu(), width, height)
    condition = known_ends(encode_clip(vae, clip, on_piece), last=last_image is not None)
    condition.mask[:, :, : (count - 1) // 4 + 1] = 1
    return condition
