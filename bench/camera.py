"""Measure how closely clips of the bundled model follow camera and object paths, over ten pictures.

usage: camera.py [--pictures 10] [--steps 10] [--sheet FILE.png]

Three sample pictures and drawn ones, at 128x128 pixels and 33 frames, each with: pans in eight directions, zooms in and
out and a roll with the prompt "nothing moves"; a pan that the prompt contradicts; a static path against a prompt that
pans; a ball that moves by 30 px; and a clip without a motion, whose first frame is compared. The camera is measured by
pipeline/motion/measure.py, pans also as the bundled model's training measures them (demo_model/measure.py), in whole
pixels, as is the ball. --sheet: five frames of every clip of the first picture, below those of its animatic.
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
from pipeline.motion.measure import deviation  # noqa: E402
from pipeline.motion.motion import Motion, move_camera, move_object, stay  # noqa: E402
from pipeline.motion.path import CAMERA_FIELDS, OBJECT_FIELDS, MotionPath  # noqa: E402
from pipeline.motion.strength import STRENGTHS  # noqa: E402
from pipeline.request import Sampling  # noqa: E402
from pipeline.sampling.hooks import NO_HOOKS  # noqa: E402
from pipeline.sampling.sampler import sample  # noqa: E402
from pipeline.sampling.time_to_move import time_to_move  # noqa: E402

SIDE, FRAMES = 128, 33
STRENGTH = STRENGTHS["bundled demo model (0.9, 0.1)"]
PAN, DIAGONAL, ZOOM, ROLL = 32, 24, 1.4, 10
"""Pixels of a pan, along an axis and along both; the factor of a zoom; degrees of a roll, which starts at zoom 1.2."""
OBJECT_PIXELS, RADIUS = 30, 13
STILL = "nothing moves"
PANS = {"left": (-PAN, 0), "right": (PAN, 0), "up": (0, -PAN), "down": (0, PAN),
        "up left": (-DIAGONAL, -DIAGONAL), "up right": (DIAGONAL, -DIAGONAL),
        "down left": (-DIAGONAL, DIAGONAL), "down right": (DIAGONAL, DIAGONAL)}


def path(start: dict[str, float], end: dict[str, float]) -> MotionPath:
    return MotionPath((0.0, 1.0), ({**CAMERA_FIELDS, **start}, {**CAMERA_FIELDS, **end}))


def off_at_end(frames: torch.Tensor, motion: Motion) -> float:
    """Return how far the middle of the first frame is from where it should be in the last one, in pixels."""
    found = deviation(frames, motion)
    return math.hypot(found.found.x - found.asked.x, found.found.y - found.asked.y) * SIDE


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
        hooks = time_to_move(motion, sampling, first) if steered else NO_HOOKS
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
            motion = camera({}, {"x": right / SIDE, "y": down / SIDE})
            frames, pixels = self.clip(motion, STILL), math.hypot(right, down)
            self.note(f"pan {name}: error of the speed, %", 100 * off_at_end(frames, motion) / pixels)
            whole = shift(frames.movedim(-1, 1))
            self.note("pans, in whole pixels: error of the speed, %",
                      100 * math.hypot(whole[0] + right, whole[1] + down) / pixels)
        for name, motion in {"in": camera({}, {"zoom": ZOOM}), "out": camera({"zoom": ZOOM}, {})}.items():
            found = deviation(self.clip(motion, STILL), motion).found
            self.note(f"zoom {name}: error of the speed, %", 100 * abs(abs(math.log(found.scale, ZOOM)) - 1))
        motion = camera({"zoom": 1.2}, {"zoom": 1.2, "roll": ROLL})
        rolled = deviation(self.clip(motion, STILL), motion).found
        self.note("roll: error, degrees", abs(-math.degrees(rolled.turn) - ROLL))
        motion = camera({}, {"x": -PAN / SIDE})
        against = off_at_end(self.clip(motion, "the camera pans right"), motion)
        self.note("pan left, prompt pans right: error of the speed, %", 100 * against / PAN)
        static, pans = camera({}, {}), "the camera pans left"
        plain, held = self.clip(static, pans, steered=False), self.clip(static, pans)
        for name, frames in (("prompt pans left, no path: px moved", plain),
                             ("prompt pans left, static path: px moved", held)):
            self.note(name, deviation(frames, static).largest * SIDE)
        for name, frames in (("first frame without a path: PSNR", plain), ("first frame with one: PSNR", held)):
            self.note(name, -10 * (frames[0] - static.animatic.images[0]).pow(2).mean().log10().item())
        self.note("ball moved by 30 px: error, px", self.ball_error(image))

    def ball_error(self, image: torch.Tensor) -> float:
        """Return how far from its goal a ball that is drawn on the picture ends, in whole pixels."""
        height, width = image.shape[1:3]
        unit = min(height, width) / SIDE
        ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        x, y = SIDE / 2 - OBJECT_PIXELS / 2, SIDE / 2
        at_x, at_y = width / 2 + (x - SIDE / 2) * unit, height / 2
        away = ((xs - at_x) ** 2 + (ys - at_y) ** 2).sqrt() / unit
        mask = (away <= RADIUS).float()[None]
        light = (1 - away / RADIUS / 3)[..., None] * torch.tensor([1.0, 0.85, 0.1])
        image = torch.where(mask[..., None] > 0, torch.where(away[..., None] > RADIUS - 2, 0.06, light), image)
        way = MotionPath((0.0, 1.0), (OBJECT_FIELDS, {"x": OBJECT_PIXELS / SIDE, "y": 0.0}))
        moved = move_object(stay(self.vae, image, SIDE, SIDE, FRAMES, STRENGTH), mask, way, STRENGTH)
        right, down = ball_path(self.clip(moved, STILL).movedim(-1, 1), x, y, RADIUS - 2, until=FRAMES - 1)
        return math.hypot(right - OBJECT_PIXELS, down)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
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
