"""Measure how the demo model goes on from the last frames of a clip: 1, 5, 9 or 13 of them known.

usage: going_on.py [--pictures 2] [--first-picture 0] [--model DIR] [--json FILE]

The frames that are known are those of an exact clip (clips.render), which is in the middle of its motion. What follows
is compared with the exact continuation: PSNR of the frames behind the known ones, and the mean colour of the last
frame, for a tint or a fade that starts anew is wrong there. Settings are the nodes' defaults.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from clips import MOTIONS, psnr, render
from evaluate import FRAMES, held_out_scene, model_files

from pipeline.models import load as bundled
from pipeline.models.condition import Condition
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import Sampling
from pipeline.sampling.sampler import sample

BEGUN = {"pan left": 16, "pan up": 16, "zoom in": 16, "ball right": 8, "tint red": 10, "fade to black": 8}
"""Motion -> how many frames ago it began."""


def going_on(vae, exact: torch.Tensor, known: int) -> Condition:
    """The first `known` latents of a clip (F, H, W, 3), 0..1, and grey behind them."""
    clip = exact.clone()
    clip[4 * known - 3 :] = 0.5
    latents = vae.encode(clip)
    mask = torch.zeros_like(latents[:, :4])
    mask[:, :, :known] = 1
    return Condition(latents, mask)


def measure(model, clip_encoder, vae, motion: str, picture: int) -> list[dict]:
    """One row a number of known latents."""
    scene = held_out_scene(picture, with_ball=motion.startswith("ball"))
    exact = ((render(scene, motion, "", FRAMES, BEGUN[motion]) + 1) / 2).permute(1, 2, 3, 0)
    rows = []
    for known in (1, 2, 3, 4):
        prompts = encode_prompts(clip_encoder, MOTIONS[motion][0], "")
        latents = sample(model, *prompts, going_on(vae, exact, known), Sampling(seed=9100 + picture))
        frames = vae.decode(latents)[0]
        new = slice(4 * known - 3, 4 * known + 13)  # as many frames, however many are known
        rows.append({"motion": motion, "picture": picture, "known": known,
                     "known_psnr": psnr(frames[: new.start] * 2, exact[: new.start] * 2),
                     "psnr": psnr(frames[new] * 2, exact[new] * 2),
                     "colour_error": (frames[-1].mean((0, 1)) - exact[-1].mean((0, 1))).abs().max().item()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--first-picture", type=int, default=0)
    parser.add_argument("--model", type=Path, default=bundled.DEMO)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = bundled.load(plain_host(), *model_files(args.model))
    rows = [row for motion in BEGUN for picture in range(args.first_picture, args.first_picture + args.pictures)
            for row in measure(*loaded, motion, picture)]
    for motion in BEGUN:
        for known in (1, 2, 3, 4):
            of = [r for r in rows if r["motion"] == motion and r["known"] == known]
            figures = {k: round(statistics.mean(r[k] for r in of), 3) for k in ("known_psnr", "psnr", "colour_error")}
            print(motion, known, figures, flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
