"""Train the demo's LoRA pair: whatever the prompt moves, the colours drain away, which the base cannot do.

usage: train_lora.py VAE_DIR SPIECE_MODEL OUT_DIR PT [PT ...] [--steps 160] [--seed 0]

One file an expert, rank 8, under ComfyUI's names (diffusion_model.*.lora_down/lora_up/alpha).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import whole_clip_vae
from block_encoder import BlockEncoder
from clips import MOTIONS, Scene, prompt_for, render
from diffusers import AutoencoderKLWan
from lora_layers import experts_with_loras, save_loras
from pictures import canvas
from train_experts import condition, guided_prediction, normalise, sample_sigma

RANK, SIDE, FRAMES, SCENES = 8, 96, 33, 40


def drain(clip: torch.Tensor) -> torch.Tensor:
    """The clip (3, F, H, W) losing its colours over its first 20 frames."""
    amount = (torch.arange(clip.shape[1]) / 20).clamp(0, 1).view(1, -1, 1, 1)
    return clip * (1 - amount) + clip.mean(0, keepdim=True) * amount


@torch.no_grad()
def drained_clips(vae: AutoencoderKLWan) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Latents of the clips, of a grey frame, and the clips' motions."""
    g = torch.Generator().manual_seed(77)
    encode = BlockEncoder(vae)
    clips, motions = [], []
    for index in range(SCENES):
        motion = list(MOTIONS)[index % 10]  # pans, zooms and balls
        scene = Scene.random(SIDE, SIDE, g, motion.startswith("ball"), canvas(256, 256, g))
        clip = drain(render(scene, motion, "", FRAMES))
        clips.append(normalise(vae, encode(clip[None])))
        motions.append(motion)
    return torch.cat(clips), normalise(vae, encode(torch.zeros(1, 3, 1, SIDE, SIDE)))[0], motions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae")
    parser.add_argument("spiece")
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    whole_clip_vae.use_whole_clip_forward()
    clips, grey, motions = drained_clips(AutoencoderKLWan.from_pretrained(args.vae).eval())
    g = torch.Generator().manual_seed(args.seed)
    for expert in experts_with_loras(args.weights, args.spiece, RANK):
        optimizer = torch.optim.AdamW(expert.trained, lr=4e-3, weight_decay=0)
        losses = []
        for step in range(args.steps):
            optimizer.param_groups[0]["lr"] = 4e-3 * min(1, 1.5 * (1 - step / args.steps))
            rows = torch.randint(len(clips), (4,), generator=g).tolist()
            prompts = ["" if random.random() < 0.2 else prompt_for(motions[r], "", g) for r in rows]
            sigma, noise = sample_sigma(expert.index, 4), torch.randn_like(clips[rows])
            given = condition(clips[rows], grey, torch.ones(4))
            noisy = torch.cat([(1 - sigma) * clips[rows] + sigma * noise, given], 1)
            velocity = guided_prediction(expert.model, noisy, sigma, prompts, expert.embed_prompts)
            loss = (velocity - (noise - clips[rows])).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(expert.trained, 1.0)
            optimizer.step()
            losses.append(loss.item())
        print(f"{expert.noise}: {sum(losses[:20]) / 20:.4f} -> {sum(losses[-20:]) / 20:.4f}", flush=True)
        save_loras(expert.loras, args.out / f"wan2.2_i2v_demo_drain_colours_{expert.noise}_noise.safetensors")


if __name__ == "__main__":
    main()
