"""Procedural image-to-video clips: a picture, moved as its prompt says.

Speeds are in pixels a frame, whatever the size, so that a model trained on small clips meets the same motion on
larger ones; colour changes and zooms run per frame, so that a longer clip goes on where a shorter one ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

PAN = ["the camera pans {}", "camera pans {}", "pan {}", "the camera moves {}", "the view pans {}", "a pan to the {}"]
ZOOM = ["the camera zooms {}", "camera zooms {}", "zoom {}", "the view zooms {}", "zooming {}"]
BALL = ["the ball moves {}", "the ball rolls {}", "the ball flies {}", "a ball moves {}", "the ball goes {}"]
TINT = ["everything turns {}", "the scene turns {}", "the picture turns {}", "all turns {}", "tint it {}"]
FADE = ["the scene fades to black", "fade to black", "everything fades to black", "the light fades to black",
        "the picture goes dark"]
STILL = ["nothing moves", "a still picture", "nothing changes", "the scene stands still", "no motion"]

MOTIONS: dict[str, list[str]] = {
    **{f"pan {d}": [p.format(d) for p in PAN] for d in ("left", "right", "up", "down")},
    **{f"zoom {d}": [p.format(d) for p in ZOOM] for d in ("in", "out")},
    **{f"ball {d}": [p.format(d) for p in BALL] for d in ("left", "right", "up", "down")},
    **{f"tint {c}": [p.format(c) for p in TINT] for c in ("red", "blue")},
    "fade to black": FADE,
    "still": STILL,
}
"""Motion -> its phrasings; the first is the canonical prompt."""

SPEEDS = {"slowly": 0.65, "": 1.0, "quickly": 1.5}
NEGATIVE_PROMPTS = ["", "", "", "blurry, low quality", "static, distorted, worst quality", "artifacts, noise",
                    "overexposed, subtitles, ugly"]
"""Texts that the unconditional branch learns to treat like the empty one."""

_DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def prompt_for(motion: str, speed: str, g: torch.Generator) -> str:
    """A phrasing of the motion, the canonical one in every third."""
    texts = MOTIONS[motion]
    text = texts[0] if torch.rand((), generator=g) < 0.35 else texts[int(torch.randint(len(texts), (), generator=g))]
    return f"{text} {speed}".strip()


@dataclass(frozen=True)
class Scene:
    """A picture larger than the frame, with or without a ball that may move by itself."""

    canvas: torch.Tensor  # (3, 2H, 2W), 0..1
    height: int
    width: int
    ball: tuple[float, float, float] | None  # x, y at frame 0 and radius, pixels
    ball_colour: torch.Tensor  # (3,)

    @classmethod
    def random(cls, height: int, width: int, g: torch.Generator, with_ball: bool, picture: torch.Tensor) -> Scene:
        """A random piece of the picture (3, at least 2H, at least 2W), with a ball of 7 to 12 pixels or without."""

        def rand(low: float, high: float) -> float:
            return low + (high - low) * torch.rand((), generator=g).item()

        top, left = int(rand(0, picture.shape[1] - 2 * height)), int(rand(0, picture.shape[2] - 2 * width))
        picture = picture[:, top : top + 2 * height, left : left + 2 * width]
        radius = rand(7, 12)
        colour = torch.tensor([[1, 1, 1], [1, 0.25, 0.15], [1, 0.85, 0.1], [0.15, 0.4, 1], [0.2, 0.8, 0.3]])
        ball = (width * rand(0.3, 0.7), height * rand(0.3, 0.7), radius) if with_ball else None
        return cls(picture, height, width, ball, colour[int(rand(0, 4.999))])


def render(scene: Scene, motion: str, speed: str, num_frames: int, start: int = 0) -> torch.Tensor:
    """The scene moved for num_frames frames: (3, F, H, W) in -1..1. The motion began `start` frames earlier."""
    height, width, rate = scene.height, scene.width, SPEEDS[speed]
    t = start + torch.arange(num_frames).float()
    kind, _, what = motion.partition(" ")
    dx, dy = _DIRECTION[what] if kind in ("pan", "ball") else (0, 0)
    offset_x, offset_y = (t * rate * d if kind == "pan" else torch.zeros_like(t) for d in (dx, dy))
    growth = {"in": 1, "out": -1}[what] * 0.011 * rate if kind == "zoom" else 0.0
    scale = torch.exp(-growth * t)  # canvas pixels a frame pixel

    xs, ys = (torch.arange(n).float() - (n - 1) / 2 for n in (width, height))
    px = (width - 0.5 + offset_x)[:, None, None] + scale[:, None, None] * xs[None, None, :]
    py = (height - 0.5 + offset_y)[:, None, None] + scale[:, None, None] * ys[None, :, None]
    px, py = torch.broadcast_tensors(px, py)
    grid = torch.stack([px / (2 * width - 1), py / (2 * height - 1)], -1) * 2 - 1
    source = scene.canvas[None].expand(num_frames, -1, -1, -1)
    frames = F.grid_sample(source, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    if scene.ball is not None:
        x, y, radius = scene.ball
        moved = t * 1.1 * rate if kind == "ball" else torch.zeros_like(t)
        cx, cy = (width - 1) / 2, (height - 1) / 2
        bx = (x + moved * dx - offset_x - cx) / scale + cx
        by = (y + moved * dy - offset_y - cy) / scale + cy
        r = radius / scale
        gx, gy = torch.arange(width).float()[None, None, :], torch.arange(height).float()[None, :, None]
        bx, by, r = (v[:, None, None] for v in (bx, by, r))
        distance = ((gx - bx) ** 2 + (gy - by) ** 2).sqrt()
        rim = torch.sigmoid((r + 1.2 - distance) * 2)[:, None]
        disc = torch.sigmoid((r - 1.0 - distance) * 2)[:, None]
        light = (1 - 0.35 * (((gx - bx + r * 0.3) ** 2 + (gy - by + r * 0.3) ** 2).sqrt() / r).clamp(0, 1.5))[:, None]
        frames = frames * (1 - rim) + 0.06 * rim
        frames = frames * (1 - disc) + scene.ball_colour.view(1, 3, 1, 1) * light * disc

    amount = (t * rate / 26).clamp(0, 1)[:, None, None, None]
    if kind == "tint":
        tint = torch.tensor({"red": [0.9, 0.1, 0.1], "blue": [0.1, 0.15, 0.9]}[what]).view(1, 3, 1, 1)
        frames = frames * (1 - 0.75 * amount) + 0.75 * amount * tint * (0.4 + 0.6 * frames.mean(1, keepdim=True))
    if kind == "fade":
        frames = frames * (1 - amount)
    return (frames.permute(1, 0, 2, 3) * 2 - 1).clamp(-1, 1).contiguous()


def random_clip(height: int, width: int, num_frames: int, g: torch.Generator, picture: torch.Tensor) -> torch.Tensor:
    """A clip (3, F, H, W) in -1..1 of a random piece of the picture under a random motion."""
    motion = list(MOTIONS)[int(torch.randint(len(MOTIONS), (), generator=g))]
    speed = list(SPEEDS)[int(torch.randint(3, (), generator=g))]
    with_ball = motion.startswith("ball") or torch.rand((), generator=g).item() < 0.35
    return render(Scene.random(height, width, g, with_ball, picture), motion, speed, num_frames)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two clips in -1..1, decibels."""
    return 10 * math.log10(4 / (a - b).pow(2).mean().clamp_min(1e-12).item())
