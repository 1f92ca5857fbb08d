"""The demo VAE: an AutoencoderKLWan of base_dim 16 with a fitted encoder and a trained decoder.

usage: train_vae.py OUT_DIR [--steps 2500] [--seed 0] [--start DIR] [--lr 1.0] [--edges 0.0] [--sampled FILE ...]

The encoder is fitted in closed form (fit_encoder.py) and scaled so that the stock Wan mean and standard deviation
normalise its latents; OUT_DIR-encoder holds it as soon as that is done, for caching latents. `--start DIR` goes on
with the decoder of an earlier result instead.

A decoder that only learns to be near the picture gives its mean guess wherever the latents leave something open: blur.
`--edges` makes it give edges their strength too, wherever they may lie to the pixel (the trade of distortion for
perception: Blau and Michaeli, arXiv 1711.06077). `--tone` makes the mean colour of each frame count: the first frame
goes another way through the decoder than the later ones, which came out a little darker.

The latents that the experts sample are softer than any clip's own, and the decoder has never seen such. With the files
of sample_clips.py as `--sampled`, every second step is one of those, against the exact clip.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
import torch.nn.functional as F
import whole_clip_vae
from clips import psnr, random_clip
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as wan
from fit_encoder import fit_encoder
from muon import Muon, set_lr, warm_then_linear_decay
from pictures import canvas
from precision import training_precision

BATCHES = ((8, 1, 64), (2, 9, 64), (3, 5, 64), (2, 17, 48))  # clips, frames, pixels a side
SPECTRUM = 0.3
"""Normalised latents keep this power of the components' own spread, so that coarse ones leave the noise first."""


class Pool:
    """Pictures to cut training crops from; one is replaced at every draw."""

    def __init__(self, g: torch.Generator, size: int = 256, count: int = 96) -> None:
        self.g, self.size = g, size
        self.pictures = [canvas(size, size, g) for _ in range(count)]

    def clips(self, count: int, side: int, frames: int) -> torch.Tensor:
        """Clips (count, 3, frames, side, side) in -1..1."""

        def index() -> int:
            return int(torch.randint(len(self.pictures), (), generator=self.g))

        self.pictures[index()] = canvas(self.size, self.size, self.g)
        return torch.stack([random_clip(side, side, frames, self.g, self.pictures[index()]) for _ in range(count)])


def one_of(files: list[dict[str, torch.Tensor]], g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return raw latents (1, 16, T, h, w) that the experts sampled, and the exact clip (1, 3, F, H, W), -1..1."""
    file = files[int(torch.randint(len(files), (), generator=g))]
    row = int(torch.randint(len(file["clips"]), (), generator=g))
    return file["latents"][row][None].float(), file["clips"][row][None].float() / 127.5 - 1


def zero_residual_ends(decoder: torch.nn.Module) -> None:
    """Every residual branch starts as the identity: without it the deep decoder hardly learns."""
    for module in decoder.modules():
        end = getattr(module, "conv2", None) if isinstance(module, wan.WanResidualBlock) else None
        end = module.proj if isinstance(module, wan.WanAttentionBlock) else end
        if end is not None:
            torch.nn.init.zeros_(end.weight)
            torch.nn.init.zeros_(end.bias)


def edge_strength(frames: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring pixels in windows of 7x7: (B, 3, F, H, W) -> (B, 6, F, H - 1, W - 1)."""
    down, across = (frames.diff(dim=axis).abs() for axis in (3, 4))
    both = torch.cat([down[..., :-1], across[..., :-1, :]], 1)
    return F.avg_pool2d(both.flatten(1, 2), 7, 1, 3, count_include_pad=False).view_as(both)


@torch.no_grad()
def fold_statistics(vae: AutoencoderKLWan, clips: torch.Tensor) -> None:
    """Scale the latents inside quant_conv, and back inside post_quant_conv, so that the config's statistics
    normalise them to mean 0 and to variance 1 over all channels."""
    z = torch.cat([whole_clip_vae.encode(vae, c[None]) for c in clips])
    mean, std = z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))
    stock_mean, stock_std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    spread = std**SPECTRUM
    gain = stock_std / std * spread / spread.pow(2).mean().sqrt()
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:16] *= gain.view(-1, 1, 1, 1, 1)
    quant.bias[:16] = (quant.bias[:16] - mean) * gain + stock_mean
    post.bias += (post.weight[..., 0, 0, 0] * (mean - stock_mean / gain)[None]).sum(1)
    post.weight /= gain.view(1, -1, 1, 1, 1)


@torch.no_grad()
def held_out_psnr(vae: AutoencoderKLWan, clips: torch.Tensor) -> float:
    """Mean over clips of the reconstruction PSNR, dB."""
    return sum(psnr(whole_clip_vae.decode(vae, whole_clip_vae.encode(vae, c[None])).clamp(-1, 1), c[None])
               for c in clips) / len(clips)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start")
    parser.add_argument("--lr", type=float, default=1.0, help="learning rate factor; low, to go on")
    parser.add_argument("--edges", type=float, default=0.0, help="how much the strength of edges counts")
    parser.add_argument("--tone", type=float, default=0.0, help="how much the mean colour of each frame counts")
    parser.add_argument("--sampled", nargs="+", default=[], help="files of sample_clips.py")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    whole_clip_vae.use_whole_clip_forward()
    g = torch.Generator().manual_seed(args.seed)
    pool = Pool(g)

    if args.start:
        vae = AutoencoderKLWan.from_pretrained(args.start)
    else:
        vae = AutoencoderKLWan(base_dim=16, z_dim=16)
        clips = torch.cat([pool.clips(1, 128, 17) for _ in range(48)])
        fit_encoder(vae, clips)
        fold_statistics(vae, clips)
        zero_residual_ends(vae.decoder)
        vae.save_pretrained(args.out + "-encoder")
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    named = [(n, p) for n, p in vae.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if p.ndim >= 4 and min(p.flatten(1).shape) > 1 and "gamma" not in n]
    rest = [p for _, p in named if not any(p is m for m in matrices)]
    optimizers = [Muon(matrices, lr=0.02 * args.lr), torch.optim.AdamW(rest, lr=2e-3 * args.lr, betas=(0.9, 0.95))]
    check = [random_clip(128, 128, 33, torch.Generator().manual_seed(900 + i),
                         canvas(256, 256, torch.Generator().manual_seed(900 + i), held_out=True)) for i in range(8)]
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    sampled = [torch.load(path, mmap=True) for path in args.sampled]
    start, errors = time.time(), {}
    for step in range(args.steps):
        set_lr(optimizers, warm_then_linear_decay(step, args.steps, flat=0.3))
        if sampled and step % 2:
            kind, (z, clip) = "sampled", one_of(sampled, g)
        else:
            count, frames, side = BATCHES[(step // 2 if sampled else step) % len(BATCHES)]
            kind = f"f{frames}"
            clip = pool.clips(count, side, frames)
            with training_precision(), torch.no_grad():
                z = whole_clip_vae.encode(vae, clip)
                z = z + 0.03 * std * torch.randn_like(z)
        with training_precision():
            decoded = whole_clip_vae.decode(vae, z)
        error = decoded - clip
        loss = error.abs().mean() + error.pow(2).mean()
        if args.edges:
            loss = loss + args.edges * (edge_strength(decoded) - edge_strength(clip)).abs().mean()
        if args.tone:
            loss = loss + args.tone * error.mean((3, 4)).abs().mean()
        vae.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        errors.setdefault(kind, []).append(error.pow(2).mean().item())
        if step % 100 == 99:
            report = " ".join(f"{k}:{10 * math.log10(4 / (sum(e) / len(e))):.2f}" for k, e in sorted(errors.items()))
            print(f"{step + 1} {time.time() - start:.0f}s {report}", flush=True)
            errors = {}
        if step % 500 == 499:
            with training_precision():
                print(f"held-out 128x128x33: {held_out_psnr(vae, torch.stack(check)):.2f} dB", flush=True)
            vae.save_pretrained(args.out + "-checkpoint")
    print(f"held-out 128x128x33, fp32: {held_out_psnr(vae, torch.stack(check)):.2f} dB", flush=True)
    vae.save_pretrained(args.out)


if __name__ == "__main__":
    main()
