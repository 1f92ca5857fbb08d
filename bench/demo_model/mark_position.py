"""Let the demo VAE's encoder say where in the picture a latent lies.

usage: mark_position.py VAE_DIR OUT_DIR [--steps 1500] [--seed 0]

Wan's transformer knows only how far tokens are apart (rotary embedding), not where they are; where they are it reads
from the latents, into which a convolutional encoder leaks it through the zeros it pads its borders with. The fitted
encoder works block by block and leaks nothing, so that a zoom, which moves every place another way, could not be
learned: zooming in and out gave the same clip. Here the residual branches of the encoder's four blocks at latent
size, zero so far, learn from their zero padding to write how far right and how far down a place is, and the last layer
adds that to the two weakest latent channels.
"""

from __future__ import annotations

import argparse

import torch
import whole_clip_vae
from diffusers import AutoencoderKLWan

FEATURES = (61, 62)  # the two weakest differences give way to them
CHANNELS = (14, 15)  # the two latent channels whose errors show least
SPAN = 8  # latents: how far from the border a place still knows it, half of the 16 of the demo's 128 pixels
STRENGTH = 1.0  # normalised latents, at the border
CONSTANT = 40.0  # the encoder's constant feature, fit_encoder.py
SIZES = ((16, 16), (16, 16), (16, 16), (12, 16), (16, 10), (8, 8), (20, 26))


def ramp(length: int) -> torch.Tensor:
    """-1 at the first place, 1 at the last, 0 where both borders are more than SPAN away: (length,)."""
    x = torch.arange(length).float()
    reach = min(length - 1, 2 * SPAN - 1) / 2
    return (x - (length - 1) + reach).clamp_min(0) / reach - (reach - x).clamp_min(0) / reach


def _target(height: int, width: int) -> torch.Tensor:
    """(2, height, width): right, down."""
    return torch.stack([ramp(width)[None].expand(height, -1), ramp(height)[:, None].expand(-1, width)])


@torch.no_grad()
def _open_branches(vae: AutoencoderKLWan) -> list[torch.nn.Module]:
    """The four residual blocks, made to read the constant and the marks and to write nothing yet."""
    encoder = vae.encoder
    blocks = [encoder.down_blocks[9], encoder.down_blocks[10], *encoder.mid_block.resnets]
    for block in blocks:
        block.norm1.gamma.zero_()
        block.norm1.gamma[list(FEATURES)] = 2.5
        block.norm1.gamma[-1] = 0.125
        block.norm2.gamma.fill_(1.0)
        for conv in (block.conv1, block.conv2):
            conv.weight[:, :, :-1] = 0
        block.conv2.weight.zero_()
        block.conv2.bias.zero_()
    for time_conv in (encoder.down_blocks[5].time_conv, encoder.down_blocks[8].time_conv):
        time_conv.weight[[c for c in FEATURES if c < time_conv.out_channels - 1]] = 0
    encoder.conv_out.weight[:16, list(FEATURES)] = 0
    return blocks


def mark_position(vae: AutoencoderKLWan, steps: int = 1500, seed: int = 0) -> float:
    """Train the branches and connect them; returns the worst error of a mark in a normalised 16x16 latent.

    The encoder must be fitted (fit_encoder.py), its latents scaled (train_vae.fold_statistics).
    """
    blocks = _open_branches(vae)
    trained = [p for b in blocks for m in (b.conv1, b.norm2, b.conv2) for p in m.parameters()]
    for p in trained:
        p.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=4e-3)
    g = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / steps)
        height, width = SIZES[step % len(SIZES)]
        x = torch.randn(2, 64, 1, height, width, generator=g) * torch.rand(2, 1, 1, 1, 1, generator=g) * 2
        x[:, list(FEATURES)], x[:, -1] = 0, CONSTANT
        for block in blocks:
            x = block(x)
        loss = (x[:, list(FEATURES), 0] / 2 - _target(height, width)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        for block in blocks:
            for p in (block.conv2.weight, block.conv2.bias):
                kept = p.grad[list(FEATURES)].clone()
                p.grad.zero_()
                p.grad[list(FEATURES)] = kept
        optimizer.step()
        if step % 250 == 249:
            print(f"{step + 1} mark error {loss.item() ** 0.5:.4f}", flush=True)

    encoder, std = vae.encoder, torch.tensor(vae.config.latents_std)
    with torch.no_grad():
        encoder.norm_out.gamma[list(FEATURES)] = encoder.norm_out.gamma[0].item()
        still = torch.zeros(1, 3, 1, 128, 128)
        before = whole_clip_vae.encode(vae, still)
        for feature, channel in zip(FEATURES, CHANNELS, strict=True):
            encoder.conv_out.weight[channel, feature, -1, 1, 1] = 1.0
        reached = (whole_clip_vae.encode(vae, still) - before)[0, list(CHANNELS), 0] / std[list(CHANNELS)].view(2, 1, 1)
        for i, (feature, channel) in enumerate(zip(FEATURES, CHANNELS, strict=True)):
            target = _target(16, 16)[i]
            gain = STRENGTH * (target * target).sum() / (target * reached[i]).sum()
            encoder.conv_out.weight[channel, feature, -1, 1, 1] = gain
        marked = (whole_clip_vae.encode(vae, still) - before)[0, :, 0] / std.view(16, 1, 1)
        return (marked[list(CHANNELS)] - STRENGTH * _target(16, 16)).abs().max().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    whole_clip_vae.use_whole_clip_forward()
    vae = AutoencoderKLWan.from_pretrained(args.vae)
    vae.requires_grad_(False)
    print(f"worst error of a mark {mark_position(vae, args.steps, args.seed):.4f}")
    vae.save_pretrained(args.out)


if __name__ == "__main__":
    main()
