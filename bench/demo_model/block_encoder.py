"""The fitted encoder as two matrix products: what lets training draw new clips without end.

`fit_encoder.py` builds an encoder that is linear, block of pixels by block of pixels, up to its last norm, and
`mark_position.py` adds what depends on the place alone. Probed once with unit blocks, it gives the matrices; a clip
then encodes in milliseconds instead of seconds, with the same latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import whole_clip_vae
from diffusers import AutoencoderKLWan

FIRST, LATER = 3 * 8 * 8, 3 * 4 * 8 * 8


def _blocks(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (B, 3, 4n + 1, H, W) -> blocks (B, 1, H/8, W/8, 192) of frame 0 and (B, n, H/8, W/8, 768) of the rest."""
    b, _, f, h, w = clips.shape
    n, y, x = f // 4, h // 8, w // 8
    first = clips[:, :, :1].reshape(b, 3, 1, y, 8, x, 8).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, 1, y, x, FIRST)
    later = clips[:, :, 1:].reshape(b, 3, n, 4, y, 8, x, 8).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return first, later.reshape(b, n, y, x, LATER)


class BlockEncoder:
    """`whole_clip_vae.encode` of a fitted encoder, at a thousandth of the cost."""

    @torch.no_grad()
    def __init__(self, vae: AutoencoderKLWan) -> None:
        clip = torch.zeros(2, 3, 33, 128, 128)
        first, later = _blocks(clip)
        first.view(2, 256, FIRST)[0, :FIRST] = torch.eye(FIRST)
        later = later.reshape(2, 2048, LATER)
        later[0, :LATER] = torch.eye(LATER)
        clip[:, :, :1] = first.reshape(2, 1, 16, 16, 3, 8, 8).permute(0, 4, 1, 2, 5, 3, 6).reshape(2, 3, 1, 128, 128)
        later = later.reshape(2, 8, 16, 16, 3, 4, 8, 8).permute(0, 4, 1, 5, 2, 6, 3, 7)
        clip[:, :, 1:] = later.reshape(2, 3, 32, 128, 128)
        self.vae, self.constants = vae, {}
        answer = self._features(clip)  # (2, 9, 16, 16, C)
        constant = answer[1, 0].reshape(256, -1)
        self.first = answer[0, 0].reshape(256, -1)[:FIRST] - constant[:FIRST]
        self.later = answer[0, 1:].reshape(2048, -1)[:LATER] - constant.repeat(8, 1)[:LATER]
        norm, out = vae.encoder.norm_out, vae.encoder.conv_out
        self.gamma = norm.gamma.flatten() * norm.scale
        mix = vae.quant_conv.weight[:16, :, 0, 0, 0]
        self.head = (mix @ out.weight[:, :, -1, 1, 1]).T
        self.bias = mix @ out.bias + vae.quant_conv.bias[:16]

    def _features(self, clips: torch.Tensor) -> torch.Tensor:
        """What the encoder's last norm is given, (B, n + 1, H / 8, W / 8, C)."""
        seen: list[torch.Tensor] = []
        hook = self.vae.encoder.norm_out.register_forward_pre_hook(lambda _, args: seen.append(args[0].float()))
        whole_clip_vae.encode(self.vae, clips)
        hook.remove()
        return seen[0].permute(0, 2, 3, 4, 1)

    def _constant(self, height: int, width: int) -> torch.Tensor:
        """The features of grey, which tell the place: (height, width, C)."""
        if (height, width) not in self.constants:
            grey = torch.zeros(1, 3, 1, 8 * height, 8 * width)
            self.constants[height, width] = self._features(grey)[0, 0]
        return self.constants[height, width]

    @torch.no_grad()
    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips (B, 3, 4n + 1, H, W) in -1..1 -> raw latent mean (B, 16, n + 1, H / 8, W / 8)."""
        first, later = _blocks(clips)
        features = torch.cat([first @ self.first, later @ self.later], 1) + self._constant(*first.shape[2:4])
        z = F.silu(F.normalize(features, dim=-1) * self.gamma) @ self.head + self.bias
        return z.permute(0, 4, 1, 2, 3).contiguous()


@torch.no_grad()
def pixel_weights(clips: torch.Tensor, latents: torch.Tensor, floor: float = 0.25) -> torch.Tensor:
    """(C,), mean 1: how much an error of one in each latent channel changes the pixels, by least squares.

    clips: (B, 3, 4n + 1, H, W); latents: theirs, (B, C, n + 1, H / 8, W / 8). A part of `floor` is the same for all.
    """
    x = latents[:, :, 1:].permute(0, 2, 3, 4, 1).flatten(0, -2)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    seen = torch.linalg.lstsq(x, _blocks(clips)[1].flatten(0, -2)).solution[:-1].pow(2).sum(1)
    return floor + (1 - floor) * seen / seen.mean()
