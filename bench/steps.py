"""Ways to spend fewer passes on a clip, each against a run of 100 Euler steps on the bundled model.

usage: steps.py [--clips 6] [--json FILE]

Every way makes the same clips: two of the workflows' pictures and three prompts, one seed, 128x128, 33 frames, guidance
5, shift 5. A pass is one run of an expert; under guidance a step takes two. PSNR is that of the decoded frames to those
of the 100 steps, 1 being white. Motion is the mean difference of neighbouring frames, as a share of that of the 100
steps. Both are means over the clips.

This is a tiny model: its velocity changes little at high noise, and it is no distilled one, so that the lists and the
step of distilled weights stand here for what they cost a model that was not made for them. That a way does well here
proves nothing for the 14B model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.condition import encode_first_frame  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.text_encoder import encode_prompts  # noqa: E402
from pipeline.request import Sampling  # noqa: E402
from pipeline.sampling.hooks import combine, observe  # noqa: E402
from pipeline.sampling.negative_pass import negative_pass_every  # noqa: E402
from pipeline.sampling.sampler import sample  # noqa: E402
from pipeline.sampling.sigma_lists import LIGHTX2V, THINNED_14, THINNED_18, TURBO  # noqa: E402

PICTURES = ("wan22_cat.jpg", "wan22_rocket.jpg")
PROMPTS = ("the camera pans left", "the camera zooms in", "everything turns red")
CLIPS = [*itertools.product(PICTURES, PROMPTS)]
SEED, SIDE, FRAMES = 9000, 128, 33
REFERENCE_STEPS = 100


@dataclass(frozen=True)
class Way:
    """Settings of one row of the table."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    negative_every: int = 1


def steps(count: int, scheduler: str = "euler") -> Way:
    return Way(f"{scheduler} {count}", {"num_inference_steps": count, "scheduler": scheduler})


def listed(name: str, scheduler: str = "euler") -> Way:
    return Way(f"{name}, {scheduler}", {"sigma_schedule": name, "scheduler": scheduler})


WAYS = [
    *(steps(count, scheduler) for scheduler in ("euler", "dpmpp_2m") for count in (30, 18, 14)),
    *(listed(name, scheduler) for name in (THINNED_18, THINNED_14) for scheduler in ("euler", "dpmpp_2m")),
    *(Way(f"{scheduler} 30, negative pass every {n}", {"scheduler": scheduler}, n)
      for scheduler, n in (("euler", 2), ("euler", 3), ("dpmpp_2m", 2))),
    Way(f"{THINNED_18}, dpmpp_2m, negative pass every 2", {"sigma_schedule": THINNED_18, "scheduler": "dpmpp_2m"}, 2),
    steps(30, "lcm"),
    *(listed(name, scheduler) for name in (LIGHTX2V, TURBO) for scheduler in ("euler", "lcm")),
]


class Clip:
    """One of the clips: its inputs, and its frames after the steps that stand for the truth."""

    def __init__(self, loaded: tuple, picture: str, prompt: str) -> None:
        self.model, encoder, self.vae = loaded
        pixels = np.asarray(Image.open(ROOT / "workflows" / "input" / picture).convert("RGB"))
        first = encode_first_frame(self.vae, torch.from_numpy(pixels / np.float32(255))[None], SIDE, SIDE, FRAMES)
        self.inputs = (*encode_prompts(encoder, prompt, ""), first)
        self.truth, _ = self.frames(steps(REFERENCE_STEPS))

    def frames(self, way: Way) -> tuple[torch.Tensor, int]:
        """Return frames (33, 128, 128, 3), 0..1, and the number of passes they took."""
        passes: list[int] = []
        hooks = combine(observe(before_pass=lambda step, expert: passes.append(step)),
                        negative_pass_every(way.negative_every))
        latents = sample(self.model, *self.inputs, Sampling(SEED, **way.settings), hooks)
        return self.vae.decode(latents)[0], len(passes)


def psnr(frames: torch.Tensor, truth: torch.Tensor) -> float:
    return -10 * math.log10((frames - truth).pow(2).mean().item())


def motion_of(frames: torch.Tensor) -> float:
    return frames.diff(dim=0).abs().mean().item()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=len(CLIPS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = bundled.load(plain_host())
    clips = [Clip(loaded, *clip) for clip in CLIPS[:args.clips]]
    rows = []
    print(f"| against {REFERENCE_STEPS} Euler steps | passes | PSNR dB | lowest | motion |\n|---|---|---|---|---|")
    for way in WAYS:
        found = [clip.frames(way) for clip in clips]
        pairs = [(frames, clip.truth) for (frames, _), clip in zip(found, clips, strict=True)]
        decibels = [psnr(*pair) for pair in pairs]
        motion = statistics.mean(motion_of(frames) / motion_of(truth) for frames, truth in pairs)
        rows.append({"way": way.name, "passes": statistics.mean(passes for _, passes in found), "psnr": decibels,
                     "motion": motion})
        print(f"| {way.name} | {rows[-1]['passes']:g} | {statistics.mean(decibels):.1f} | {min(decibels):.1f} | "
              f"{motion:.1%} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
