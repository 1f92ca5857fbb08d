"""Sample clips of pictures to train on: what the experts give the decoder, beside the exact clip.

usage: sample_clips.py FILE [--clips 240] [--first 0] [--model DIR]

For train_vae.py --sampled. FILE gets {"latents": (N, 16, 9, 16, 16), raw, fp16; "clips": (N, 3, 33, 128, 128),
the exact clips, uint8}. Kinds are drawn by SHARES; steps are 10, 20 or 30. About 8 seconds a clip on one thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from clips import MOTIONS, Scene, render
from evaluate import FRAMES, SIDE, image_of, model_files
from pictures import canvas

from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import Sampling
from pipeline.sampling.sampler import sample

SHARES = {"pan": 0.4, "zoom": 0.25, "still": 0.15}
STEPS = (10, 20, 30)


def drawn_motion(g: torch.Generator) -> str:
    """One of MOTIONS, by SHARES; the kinds without a share split the rest."""
    kinds = [motion.partition(" ")[0] for motion in MOTIONS]
    rest = [kind for kind in kinds if kind not in SHARES]
    shares = [SHARES[kind] / kinds.count(kind) if kind in SHARES else (1 - sum(SHARES.values())) / len(rest)
              for kind in kinds]
    return list(MOTIONS)[int(torch.multinomial(torch.tensor(shares), 1, generator=g))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--clips", type=int, default=240)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip")
    parser.add_argument("--model", type=Path, default=bundled.DEMO)
    args = parser.parse_args()
    model, text_encoder, vae = bundled.load(plain_host(), *model_files(args.model))
    latents, clips = [], []
    for index in range(args.first, args.first + args.clips):
        g = torch.Generator().manual_seed(200_000 + index)
        motion = drawn_motion(g)
        scene = Scene.random(SIDE, SIDE, g, motion.startswith("ball") or index % 4 == 0, canvas(256, 256, g))
        clip = render(scene, motion, "", FRAMES)
        first = encode_first_frame(vae, image_of(clip), SIDE, SIDE, FRAMES)
        prompts = encode_prompts(text_encoder, MOTIONS[motion][0], "")
        sampled = sample(model, *prompts, first, Sampling(seed=index, num_inference_steps=STEPS[index % len(STEPS)]))
        latents.append(sampled[0].half())
        clips.append(((clip + 1) * 127.5).round().byte())
        if index % 10 == 9 or len(clips) == args.clips:
            torch.save({"latents": torch.stack(latents), "clips": torch.stack(clips)}, args.file)
            print(f"{len(clips)} clips", flush=True)


if __name__ == "__main__":
    main()
