"""Train the demo's second LoRA pair: it goes on from a clip's last latent and an anchor picture.

usage: train_svi_lora.py VAE_DIR SPIECE_MODEL OUT_DIR PT [PT ...] [--steps 240] [--seed 0] [--expert high|low]

The condition is that of Stable Video Infinity 2.0 Pro (github.com/vita-epfl/Stable-Video-Infinity): zeros in normalised
space but for the anchor picture's latent at 0, and, from the second clip of a chain on, the last latent of the clip
before at 1; the mask tells latent 0 alone. The clip shows the anchor, then the last four frames of the clip before
again, then how they go on. One file an expert, rank 8. The last latents are softened in half of the clips, as those of
a chain are; what is shown counts `COPY` times; the low-noise expert learns on its own trajectories too
(trajectories.py).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import whole_clip_vae
from block_encoder import BlockEncoder
from clips import MOTIONS, Scene, prompt_for, render
from diffusers import AutoencoderKLWan
from lora_layers import experts_with_loras, save_loras
from pictures import canvas
from train_experts import (
    BOUNDARY,
    COPY,
    guided_prediction,
    motion_weights,
    normalise,
    random_speed,
    sample_places,
    softened,
)
from trajectories import OWN, Clips, Trajectories, place_of

RANK, SIDE, FRAMES, SCENES = 8, 128, 33, 600
NEW = FRAMES - 5  # frames that a clip of the chain adds: all but the anchor and the four that are seen again
FIRST = 0.25  # of the clips, those that begin a chain


@torch.no_grad()
def chain_clips(vae: AutoencoderKLWan) -> dict:
    """Clips of chains: latents, condition latents, motions and speeds."""
    g = torch.Generator().manual_seed(79)
    encode = BlockEncoder(vae)
    clips, given, labels = [], [], []
    for index in range(SCENES):
        motion, speed = list(MOTIONS)[index % len(MOTIONS)], random_speed(g)
        scene = Scene.random(SIDE, SIDE, g, motion.startswith("ball") or index % 4 == 0, canvas(2 * SIDE, 2 * SIDE, g))
        before = -1 if torch.rand((), generator=g) < FIRST else int(torch.randint(3, (), generator=g))
        if before < 0:
            clip = render(scene, motion, speed, FRAMES)
        else:  # the clip before ends at frame 32 of the chain, or 28 or 56 later
            anchor = render(scene, motion, speed, 1)
            tail = render(scene, motion, speed, FRAMES - 1, FRAMES - 4 + NEW * before)
            clip = torch.cat([anchor, tail], 1)
        z = normalise(vae, encode(clip[None]))
        seen = torch.zeros_like(z)
        seen[:, :, 0] = z[:, :, 0]
        if before >= 0:
            last = torch.cat([clip[:, :1], softened(clip[:, 1:5], g)], 1) if index % 2 else clip[:, :5]
            seen[:, :, 1] = normalise(vae, encode(last[None]))[:, :, 1]
        clips.append(z)
        given.append(seen)
        labels.append((motion, speed))
    return {"clips": torch.cat(clips), "given": torch.cat(given), "labels": labels}


def drawn_from(data: dict, g: torch.Generator) -> Callable[[int], Clips]:
    """Draw clips of the chains, every eighth without its prompt."""
    def draw(count: int) -> Clips:
        rows = torch.randint(len(data["labels"]), (count,), generator=g).tolist()
        given = data["given"][rows]
        mask = torch.zeros_like(given[:, :4])
        mask[:, :, 0] = 1
        shown = given.abs().amax((1, 3, 4)) > 0  # (B, T): the anchor and, but in a first clip, the last latent
        prompts = ["" if random.random() < 0.125 else prompt_for(*data["labels"][r], g) for r in rows]
        return Clips(data["clips"][rows], torch.cat([mask, given], 1), prompts, [p != "" for p in prompts],
                     1 + (COPY - 1) * shown.float())
    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae")
    parser.add_argument("spiece")
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--expert", choices=("high", "low"), help="train this one's alone")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    whole_clip_vae.use_whole_clip_forward()
    data = chain_clips(AutoencoderKLWan.from_pretrained(args.vae).eval())
    g = torch.Generator().manual_seed(args.seed)
    for expert in experts_with_loras(args.weights, args.spiece, RANK, args.expert):
        trained = expert.trained
        optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0)
        compiled = torch.compile(expert.model, dynamic=False)
        at = Trajectories(drawn_from(data, g), 4, place_of(BOUNDARY), partial(sample_places, expert.index),
                          OWN * expert.index)
        losses = []
        for step in range(args.steps):
            optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 10, 1.5 * (1 - step / args.steps))
            velocity = guided_prediction(compiled, torch.cat([at.noisy, at.clips.condition], 1), at.sigma,
                                         at.clips.prompts, expert.embed_prompts)
            counts = motion_weights(at.clips.clean) * at.clips.counts[:, None, :, None, None]
            loss = ((velocity - at.target()).pow(2) * counts * at.weight()).mean()
            at.advance(velocity)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            losses.append(loss.item())
        print(f"{expert.noise}: {sum(losses[:20]) / 20:.4f} -> {sum(losses[-20:]) / 20:.4f}", flush=True)
        save_loras(expert.loras, args.out / f"wan2.2_i2v_demo_svi_{expert.noise}_noise.safetensors")


if __name__ == "__main__":
    main()
