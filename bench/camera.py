"""How closely clips of the bundled model follow camera paths and object paths, over ten pictures.

usage: camera.py [--pictures 10] [--steps 16] [--sheet FILE.png]

Three sample pictures and drawn ones, at 128x128 pixels and 33 frames, each with: pans in eight directions, zooms in and
out and a roll with the prompt "nothing moves"; a pan that the prompt contradicts; a static path against a prompt that
pans; an object that moves by 30 px; and a clip without a motion, whose first frame is compared. Pans and objects are
measured as the bundled model's training measures them (demo_model/measure.py), in whole pixels; zoom, roll and rest by
pipeline/motion/measure.py. --sheet: five frames of every clip of the first picture, below those of its animatic.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench" / "demo_model")]

from measure import ball_path, shift  # noqa: E402
from pictures import procedural_canvas  # noqa: E402

from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.condition import encode_first_frame  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.text_encoder import encode_prompts  # noqa: E402
from pipeline.motion.measure import moves_of  # noqa: E402
from pipeline.motion.motion import Motion, move_camera, move_object, stay  # noqa: E402
from pipeline.motion.path import CAMERA_FIELDS, OBJECT_FIELDS  # noqa: E402
from pipeline.motion.path import Path as MotionPath
from pipeline.motion.strength import STRENGTHS  # noqa: E402
from pipeline.request import Sampling  # noqa: E402
from pipeline.sampling.hooks import NO_HOOKS  # noqa: E402
from pipeline.sampling.sampler import sample  # noqa: E402
from pipeline.sampling.time_to_move import time_to_move  # noqa: E402

SIDE, FRAMES = 128, 33
STRENGTH = STRENGTHS["bundled demo model (0.9, 0.3)"]
PAN, DIAGONAL, ZOOM, ROLL = 32, 24, 1.4, 10
"""Pixels of a pan, along an axis and along both; the factor of a zoom; degrees of a roll, which starts at zoom 1.2."""
OBJECT_PIXELS, RADIUS = 30, 13
STILL = "nothing moves"
PANS = {"left": (-PAN, 0), "right": (PAN, 0), "up": (0, -PAN), "down": (0, PAN),
        "up left": (-DIAGONAL, -DIAGONAL), "up right": (DIAGONAL, -DIAGONAL),
        "down left": (-DIAGONAL, DIAGONAL), "down right": (DIAGONAL, DIAGONAL)}


def path(start: dict[str, float], end: dict[str, float]) -> MotionPath:
    return MotionPath((0.0, 1.0), ({**CAMERA_FIELDS, **start}, {**CAMERA_FIELDS, **end}))


def picture(index: int) -> torch.Tensor:
    """Return IMAGE (1, H, W, 3): a sample picture, or a drawn one that nothing was trained on."""
    samples = sorted((ROOT / "workflows" / "input").iterdir())
    if index < len(samples):
        return torch.from_numpy(np.asarray(Image.open(samples[index]).convert("RGB"), np.float32) / 255)[None]
    return procedural_canvas(192, 192, torch.Generator().manual_seed(100 + index)).movedim(0, -1)[None]


@dataclass
class Bench:
    """The bundled model, and what was measured."""

    steps: int
    rows: dict[str, list[float]] = field(default_factory=dict)
    sheet: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model, self.encoder, self.vae = bundled.load(plain_host())

    def clip(self, motion: Motion, prompt: str, *, steered: bool = True) -> torch.Tensor:
        """Return frames (F, H, W, 3)."""
        sampling = Sampling(seed=1, num_inference_steps=self.steps)
        first = encode_first_frame(self.vae, motion.animatic.images[:1], SIDE, SIDE, FRAMES)
        hooks = time_to_move(motion, sampling) if steered else NO_HOOKS
        texts = encode_prompts(self.encoder, prompt, "")
        frames = self.vae.decode(sample(self.model, *texts, first, sampling, hooks))[0]
        self.sheet += [torch.cat(list(clip[:: FRAMES // 4]), 1) for clip in (motion.animatic.images, frames)]
        return frames

    def note(self, name: str, value: float) -> None:
        self.rows.setdefault(name, []).append(value)
        print(f"{name}: {value:.2f}", flush=True)

    def measure(self, image: torch.Tensor) -> None:
        """Make and measure all clips of one picture."""

        def camera(start: dict[str, float], end: dict[str, float]) -> Motion:
            return move_camera(self.vae, image, SIDE, SIDE, FRAMES, path(start, end), STRENGTH)

        for name, (right, down) in PANS.items():
            found = shift(self.clip(camera({}, {"x": right / SIDE, "y": down / SIDE}), STILL).movedim(-1, 1))
            off = math.hypot(found[0] + right, found[1] + down) / math.hypot(right, down)
            self.note(f"pan {name}: error of the speed, %", 100 * off)
        for name, motion in {"in": camera({}, {"zoom": ZOOM}), "out": camera({"zoom": ZOOM}, {})}.items():
            asked, found = (math.log(moves_of(frames)[-1].scale)
                            for frames in (motion.animatic.images, self.clip(motion, STILL)))
            self.note(f"zoom {name}: error of the speed, %", 100 * abs(found / asked - 1))
        rolled = self.clip(camera({"zoom": 1.2}, {"zoom": 1.2, "roll": ROLL}), STILL)
        self.note("roll: error, degrees", abs(-math.degrees(moves_of(rolled)[-1].turn) - ROLL))
        against = shift(self.clip(camera({}, {"x": -PAN / SIDE}), "the camera pans right").movedim(-1, 1))
        self.note("pan left, prompt pans right: error of the speed, %",
                  100 * math.hypot(against[0] - PAN, against[1]) / PAN)
        static, pans = camera({}, {}), "the camera pans left"
        plain, held = self.clip(static, pans, steered=False), self.clip(static, pans)
        for name, frames in (("prompt pans left, no path: px moved", plain),
                             ("prompt pans left, static path: px moved", held)):
            self.note(name, max(math.hypot(move.x, move.y) * SIDE for move in moves_of(frames)))
        for name, frames in (("first frame without a path: PSNR", plain), ("first frame with one: PSNR", held)):
            self.note(name, -10 * (frames[0] - static.animatic.images[0]).pow(2).mean().log10().item())
        self.note("object moved by 30 px: error, px", self.object_error(image))

    def object_error(self, image: torch.Tensor) -> float:
        """Return how far from its goal a disc of the picture ends, in whole pixels."""
        height, width = image.shape[1:3]
        unit = min(height, width) / SIDE
        ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        x, y = SIDE / 2 - OBJECT_PIXELS / 2, SIDE / 2
        at_x, at_y = width / 2 + (x - SIDE / 2) * unit, height / 2
        mask = (((xs - at_x) ** 2 + (ys - at_y) ** 2).sqrt() <= RADIUS * unit).float()[None]
        way = MotionPath((0.0, 1.0), (OBJECT_FIELDS, {"x": OBJECT_PIXELS / SIDE, "y": 0.0}))
        moved = move_object(stay(self.vae, image, SIDE, SIDE, FRAMES, STRENGTH), mask, way, STRENGTH)
        right, down = ball_path(self.clip(moved, STILL).movedim(-1, 1), x, y, RADIUS - 2, until=FRAMES - 1)
        return math.hypot(right - OBJECT_PIXELS, down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(args.steps)
    for index in range(args.pictures):
        bench.measure(picture(index))
        if args.sheet and index == 0:
            Image.fromarray((torch.cat(bench.sheet) * 255).byte().numpy()).save(args.sheet)
        bench.sheet.clear()
    print("\n| | median | worst |\n|---|---|---|")
    for name, values in bench.rows.items():
        worst = min(values) if "PSNR" in name else max(values)
        print(f"| {name} | {statistics.median(values):.1f} | {worst:.1f} |")


if __name__ == "__main__":
    main()
