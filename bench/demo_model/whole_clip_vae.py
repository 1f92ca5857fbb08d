"""Run AutoencoderKLWan over a whole clip at once, for training and for caching latents.

diffusers encodes and decodes a clip in pieces of 1, 4, 4, ... frames and hands the convolutions' history
from piece to piece (`AutoencoderKLWan._encode`, `_decode`). That bounds memory, but a CPU spends most of
its time on launching small convolutions. The same causal maths over the whole clip needs only two rules,
both read off `WanResample.forward` in diffusers' autoencoder_kl_wan.py:

* temporal downsampling keeps frame 0 and strides over all frames from there;
* temporal upsampling keeps latent frame 0 single and doubles the later ones, whose history starts with zeros.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as wan


def _rms_norm(self, x: torch.Tensor) -> torch.Tensor:
    """`F.normalize` without its strided norm kernel, a quarter of a CPU training step."""
    scale = torch.rsqrt(x.float().pow(2).sum(1, keepdim=True) + 1e-12).to(x.dtype)
    return x * scale * (self.gamma * self.scale).to(x.dtype) + self.bias


def _upsample(self, x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def _resample(self, x: torch.Tensor, feat_cache: None = None, feat_idx: None = None) -> torch.Tensor:
    b, c, t, h, w = x.shape
    if self.mode == "upsample3d" and t > 1:
        later = self.time_conv(x[:, :, 1:])
        later = later.reshape(b, 2, c, t - 1, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * (t - 1), h, w)
        x = torch.cat([x[:, :, :1], later], 2)
    t = x.shape[2]
    x = self.resample(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w))
    x = x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
    if self.mode == "downsample3d" and t > 1:
        x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
    return x


def use_whole_clip_forward() -> None:
    """Replace the forward functions of diffusers' Wan VAE parts in this process."""
    wan.WanRMS_norm.forward = _rms_norm
    wan.WanUpsample.forward = _upsample
    wan.WanResample.forward = _resample


def encode(vae: AutoencoderKLWan, clip: torch.Tensor) -> torch.Tensor:
    """Clip (B, 3, F, H, W) in -1..1 -> raw latent mean (B, 16, (F - 1) / 4 + 1, H / 8, W / 8)."""
    return vae.quant_conv(vae.encoder(clip))[:, : vae.config.z_dim].float()


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Raw latents -> clip in -1..1, not clamped."""
    return vae.decoder(vae.post_quant_conv(latents)).float()


def spatially(resample: wan.WanResample, x: torch.Tensor, channels: int) -> torch.Tensor:
    """Only the spatial convolution of a downsampling layer, on frames (B, C, T, H, W) widened with zero channels."""
    b, c, t, h, w = x.shape
    x = torch.nn.functional.pad(x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w), (0, 0, 0, 0, 0, channels - c))
    x = resample.resample(x)
    return x.view(b, t, *x.shape[1:]).permute(0, 2, 1, 3, 4)
