"""Fit the demo VAE's encoder in closed form: a pyramid of principal components.

Trained from random weights, a Wan VAE this small needs hours before its latents hold what 16 principal components of
every 4x8x8 block hold at once (35 dB). So the encoder is built, not trained: each strided convolution takes the
principal components of the 2x2 blocks below it, each temporal one the mean and the main differences of two frames,
and the last layer keeps 16 components. Residual branches stay zero. A still clip so has the same latent at every
time, the one of its first frame. The decoder is trained against it (train_vae.py).

Two things pass through untouched: one channel is a constant, so that the final RMS norm divides by nearly the same
number everywhere, and the signals are small there, so that SiLU is nearly linear.
"""

from __future__ import annotations

import torch
import whole_clip_vae
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as wan

CONSTANT = 40.0
KEPT = (22, 40)  # spatial components after the second and the third halving


def _components(samples: torch.Tensor, count: int) -> torch.Tensor:
    """Leading principal directions (count, D) of samples (N, D) about zero: grey is 0 and shall stay so."""
    return torch.linalg.eigh(samples.T @ samples)[1].flip(1).T[:count]


def _blocks(x: torch.Tensor, channels: int) -> torch.Tensor:
    """The 2x2 blocks of frames (B, C, T, H, W): (N, channels * 4), ordered as a conv kernel (channel, row, column)."""
    b, _, t, h, w = x.shape
    x = x[:, :channels].reshape(b, channels, t, h // 2, 2, w // 2, 2)
    return x.permute(0, 2, 3, 5, 1, 4, 6).reshape(-1, channels * 4)


def _set_spatial(conv: torch.nn.Conv2d, basis: torch.Tensor, channels: int) -> None:
    """Weights that take `basis` (K, channels * 4) of each 2x2 block and carry the constant in the last channel."""
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[: len(basis), :channels, :2, :2] = basis.view(len(basis), channels, 2, 2)
    conv.bias[-1] = CONSTANT


def _set_temporal(conv: torch.nn.Conv3d, means: int) -> None:
    """Means of two frames in the first channels, differences of the leading ones in the rest."""
    conv.weight.zero_()
    conv.bias.zero_()
    for channel in range(means):
        conv.weight[channel, channel, 1:, 0, 0] = 0.5
    for index, channel in enumerate(range(means, conv.out_channels - 1)):
        conv.weight[channel, index, 1, 0, 0], conv.weight[channel, index, 2, 0, 0] = -0.5, 0.5
    conv.bias[-1] = CONSTANT


@torch.no_grad()
def fit_encoder(vae: AutoencoderKLWan, clips: torch.Tensor) -> None:
    """Set every encoder weight of a base_dim 16 AutoencoderKLWan from training clips (N, 3, F, 128, 128) in -1..1.

    The whole-clip forward functions must be in use.
    """
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, wan.WanResidualBlock):
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
            if not isinstance(module.conv_shortcut, torch.nn.Identity):
                module.conv_shortcut.weight.zero_()
                module.conv_shortcut.bias.zero_()
                for channel in range(module.in_dim):
                    module.conv_shortcut.weight[channel, channel] = 1
        elif isinstance(module, wan.WanAttentionBlock):
            module.proj.weight.zero_()
            module.proj.bias.zero_()
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, -1, 1, 1] = 1

    downs = [m for m in encoder.down_blocks if isinstance(m, wan.WanResample)]
    _set_spatial(downs[0].resample[1], _components(_blocks(clips, 3), 12), 3)
    x = whole_clip_vae.spatially(downs[0], clips, 16)
    _set_spatial(downs[1].resample[1], _components(_blocks(x, 12), KEPT[0]), 12)
    _set_temporal(downs[1].time_conv, KEPT[0])
    x = downs[1](torch.nn.functional.pad(x, (0,) * 7 + (16,)))
    _set_spatial(downs[2].resample[1], _components(_blocks(x, 31), KEPT[1]), 31)
    _set_temporal(downs[2].time_conv, KEPT[1])
    x = downs[2](torch.nn.functional.pad(x, (0,) * 7 + (32,)))

    signals = x[:, :63].permute(0, 2, 3, 4, 1).reshape(-1, 63)
    basis = _components(signals, 16)
    small = 0.05
    gamma = small / signals.std() * CONSTANT / 8
    encoder.norm_out.gamma.fill_(gamma)
    encoder.norm_out.gamma[63] = 1.0
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    encoder.conv_out.weight[:16, :63, -1, 1, 1] = basis * (2 / (gamma * 8 / CONSTANT))
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    vae.post_quant_conv.weight.zero_()
    vae.post_quant_conv.bias.zero_()
    for conv, count in ((vae.quant_conv, 32), (vae.post_quant_conv, 16)):
        for channel in range(count):
            conv.weight[channel, channel] = 1
    encoder.conv_out.bias[16:] = -12.0  # log variance: the encoder is as good as deterministic
