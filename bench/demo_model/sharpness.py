"""Measure how much of the picture is left when a clip of the demo model ends: pans and zooms, held-out pictures.

usage: sharpness.py [--pictures 8] [--first-picture 0] [--model DIR] [--json FILE]

The last frame is compared with the picture moved exactly, where that was visible from the start: PSNR, and sharpness,
the part of the exact picture's edges that is there, at their place and with their sign (1: all; blur and wrong detail
give less). The same figures of the exact clip after encoding and decoding are the ceiling. Settings are the nodes'
defaults. About 15 seconds a clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from clips import MOTIONS, psnr, render
from evaluate import FRAMES, SIDE, held_out_scene, image_of, model_files

from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import Sampling
from pipeline.sampling.sampler import sample

MOVED = [m for m in MOTIONS if m.startswith(("pan", "zoom"))]
ZOOM_A_FRAME = 0.011  # clips.render


def visible(motion: str) -> tuple[slice, slice]:
    """Rows and columns of the last frame whose content the first frame shows too, a pixel of border left out."""
    kind, _, where = motion.partition(" ")
    far = FRAMES - 1
    if kind == "zoom":
        hidden = 0 if where == "in" else SIDE / 2 * (1 - torch.exp(torch.tensor(-ZOOM_A_FRAME * far)).item())
        inside = slice(int(hidden) + 2, SIDE - int(hidden) - 2)
        return inside, inside
    whole, left, right = slice(1, SIDE - 1), slice(far + 1, SIDE - 1), slice(1, SIDE - far - 1)
    return {"left": (whole, left), "right": (whole, right), "up": (left, whole), "down": (right, whole)}[where]


def edges_kept(picture: torch.Tensor, exact: torch.Tensor) -> float:
    """How much of the differences of neighbouring pixels in `exact` (3, H, W) the picture has: their projection."""
    found, there = 0.0, 0.0
    for axis in (1, 2):
        ours, theirs = picture.diff(dim=axis), exact.diff(dim=axis)
        found, there = found + (ours * theirs).sum().item(), there + theirs.pow(2).sum().item()
    return found / there


@dataclass(frozen=True)
class LastFrame:
    """A clip's last frame against the exact one: dB, and the part of its edges that is there."""

    motion: str
    picture: int
    psnr: float
    sharpness: float
    psnr_ceiling: float
    sharpness_ceiling: float


def compare(motion: str, last: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """PSNR and sharpness of (3, H, W), 0..1, where both show what the first frame shows."""
    rows, columns = visible(motion)
    ours, theirs = last[:, rows, columns], exact[:, rows, columns]
    return psnr(ours * 2, theirs * 2), edges_kept(ours, theirs)


def measure(model, clip_encoder, vae, motion: str, picture: int) -> LastFrame:
    """Sample one clip and compare its last frame."""
    clip = render(held_out_scene(picture, with_ball=False), motion, "", FRAMES)
    first = encode_first_frame(vae, image_of(clip), SIDE, SIDE, FRAMES)
    prompts = encode_prompts(clip_encoder, MOTIONS[motion][0], "")
    frames = vae.decode(sample(model, *prompts, first, Sampling(seed=9000 + picture)))[0]
    pixels = ((clip + 1) / 2).permute(1, 2, 3, 0)
    ceiling = vae.decode(vae.encode(pixels))[0]
    exact = pixels[-1].movedim(-1, 0)
    return LastFrame(motion, picture, *compare(motion, frames[-1].movedim(-1, 0), exact),
                     *compare(motion, ceiling[-1].movedim(-1, 0), exact))


def means(rows: list[LastFrame]) -> dict[str, float]:
    """Means of the figures."""
    return {name: round(statistics.mean(getattr(r, name) for r in rows), 3)
            for name in ("psnr", "sharpness", "psnr_ceiling", "sharpness_ceiling")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--first-picture", type=int, default=0)
    parser.add_argument("--model", type=Path, default=bundled.DEMO)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    loaded = bundled.load(plain_host(), *model_files(args.model))
    rows, found = [], {}
    for motion in MOVED:
        of_motion = [measure(*loaded, motion, picture)
                     for picture in range(args.first_picture, args.first_picture + args.pictures)]
        rows += of_motion
        found[motion] = means(of_motion)
        print(motion, found[motion], flush=True)
    found["all"] = means(rows)
    print("all", found["all"])
    if args.json:
        args.json.write_text(json.dumps({"means": found, "clips": [asdict(r) for r in rows]}, indent=1) + "\n",
                             encoding="utf-8")


if __name__ == "__main__":
    main()
