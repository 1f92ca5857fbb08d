"""What a clip does, measured on its frames alone, (F, 3, H, W), 0..1: shift, scale, ball, colour and brightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def shift(frames: torch.Tensor, step: int = 4, reach: int = 9) -> tuple[float, float]:
    """Movement of the picture's content in pixels over the clip, (right, down), summed over pairs `step` apart.

    Each pair's shift is the one whole-pixel move that leaves the smallest mean square difference in the middle.
    """
    total = torch.zeros(2)
    for before, after in zip(frames[:-step:step], frames[step::step], strict=True):
        inner = after[:, reach:-reach, reach:-reach]
        patches = before.unfold(1, inner.shape[1], 1).unfold(2, inner.shape[2], 1)  # (3, 2r+1, 2r+1, h, w)
        error = (patches - inner[:, None, None]).pow(2).mean((0, 3, 4))
        row, column = divmod(int(error.argmin()), error.shape[1])
        total += torch.tensor([reach - column, reach - row], dtype=torch.float32)
    return total[0].item(), total[1].item()


def scale(frames: torch.Tensor, step: int = 8) -> float:
    """Growth of the picture's content over the clip: the product over pairs `step` apart of the best-fitting zoom."""
    total = 1.0
    for before, after in zip(frames[:-step:step], frames[step::step], strict=True):
        best = (float("inf"), 1.0)
        for factor in (1 + 0.01 * n for n in range(-20, 21)):
            theta = torch.tensor([[[1 / factor, 0, 0], [0, 1 / factor, 0]]], dtype=torch.float32)
            grid = F.affine_grid(theta, [1, *before.shape], align_corners=False)
            moved = F.grid_sample(before[None], grid, align_corners=False, padding_mode="border")[0]
            middle = slice(before.shape[1] // 6, -(before.shape[1] // 6))
            error = (moved - after)[:, middle, middle].pow(2).mean().item()
            best = min(best, (error, factor))
        total *= best[1]
    return total


def ball_path(frames: torch.Tensor, x: float, y: float, radius: float, until: int) -> tuple[float, float]:
    """Movement (right, down) in pixels, from frame 0 to frame `until`, of the disc that lies at (x, y) in frame 0."""
    r = int(radius) + 2
    height, width = frames.shape[-2:]
    ys, xs = torch.meshgrid(torch.arange(-r, r + 1), torch.arange(-r, r + 1), indexing="ij")
    mask = ((xs**2 + ys**2).sqrt() <= radius + 1).float()
    cx, cy = round(x), round(y)
    template = F.pad(frames[:1], (r, r, r, r), mode="replicate")[0, :, cy : cy + 2 * r + 1, cx : cx + 2 * r + 1]
    for frame in frames[1 : until + 1]:
        patches = F.pad(frame[None], (r, r, r, r), mode="replicate")[0].unfold(1, 2 * r + 1, 1).unfold(2, 2 * r + 1, 1)
        error = ((patches - template[:, None, None]).pow(2) * mask).sum((0, 3, 4))
        near = torch.full_like(error, float("inf"))
        rows, columns = slice(max(0, cy - 4), min(height, cy + 5)), slice(max(0, cx - 4), min(width, cx + 5))
        near[rows, columns] = error[rows, columns]
        cy, cx = divmod(int(near.argmin()), width)
    return cx - x, cy - y


def colours(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean colour (3,) of the first and of the last frame."""
    return frames[0].mean((1, 2)), frames[-1].mean((1, 2))


def merge_lora(weights: dict[str, torch.Tensor], lora: dict[str, torch.Tensor], scale: float = 1.0,
               ) -> dict[str, torch.Tensor]:
    """An expert's weights under their original names with a LoRA of ComfyUI's names added in: w + s a/r up down."""
    merged = dict(weights)
    for key, down in lora.items():
        if key.endswith(".lora_down.weight"):
            name = key.removesuffix(".lora_down.weight")
            up, alpha = lora[f"{name}.lora_up.weight"].float(), lora[f"{name}.alpha"].item()
            target = name.removeprefix("diffusion_model.") + ".weight"
            delta = scale * alpha / len(down) * up @ down.float()
            merged[target] = (weights[target].float() + delta).to(weights[target].dtype)
    return merged


def saturation(frame: torch.Tensor) -> float:
    """Mean distance between the strongest and the weakest colour of a frame (3, H, W)."""
    return (frame.max(0).values - frame.min(0).values).mean().item()


def agrees(motion: str, frames: torch.Tensor, ball: tuple[float, float, float] | None) -> tuple[bool, dict]:
    """Whether the clip does what the motion's prompt says, and the figures behind that."""
    kind, _, what = motion.partition(" ")
    first, last = colours(frames)
    if kind == "pan":
        right, down = shift(frames)
        # The camera's way is the opposite of the content's.
        camera = {"left": right, "right": -right, "up": down, "down": -down}[what]
        across = abs(down if what in ("left", "right") else right)
        return camera > 8 and camera > 2 * across, {"right": right, "down": down}
    if kind == "zoom":
        growth = scale(frames)
        return growth > 1.08 if what == "in" else growth < 1 / 1.08, {"scale": growth}
    if kind == "ball":
        right, down = ball_path(frames, *ball, until=16)
        along = {"left": -right, "right": right, "up": -down, "down": down}[what]
        across = abs(down if what in ("left", "right") else right)
        return along > 5 and along > 2 * across, {"right": right, "down": down}
    if kind == "tint":
        channel = {"red": 0, "blue": 2}[what]
        share = [(c[channel] / c.sum().clamp_min(1e-3)).item() for c in (first, last)]
        return share[1] > share[0] + 0.08 and share[1] > 0.42, {"share": share}
    if kind == "fade":
        return last.mean().item() < 0.3 * first.mean().item(), {"brightness": [first.mean().item(), last.mean().item()]}
    right, down = shift(frames)
    drift = abs(last.mean() - first.mean()).item()
    change = (frames - frames[:1]).abs().mean().item()
    return (abs(right) <= 2 and abs(down) <= 2 and drift < 0.02 and change < 0.05,
            {"right": right, "down": down, "drift": drift, "change": change})
