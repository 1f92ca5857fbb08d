"""Where the content of one frame is in another: shift, scale and turn.

First the shift is found by phase correlation, which finds large ones, then all three by Gauss-Newton steps on the
difference of brightness, in which pixels that do not fit count little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SIDE = 160
"""Pixels of the longer side at which frames are compared."""
LEVELS = (4, 2, 1)
"""Frames are aligned at these fractions of their size, one after the other."""
LEAST_SIDE = 8
"""Pixels of the shorter side of frames that are compared, at every fraction: slopes need some."""
ITERATIONS = 8
SCALES = (1.0, 0.75, 1.33)
"""Scales to start from: of clips that stay where they should zoom."""


@dataclass(frozen=True)
class Move:
    """Where the content of a frame has gone: p -> scale * turn(p) + (x, y), about the frame's middle."""

    x: float = 0.0
    """In widths of the frame, to the right; `y` too, down."""
    y: float = 0.0
    scale: float = 1.0
    turn: float = 0.0
    """In radians, clockwise on the screen."""

    def then(self, later: Move) -> Move:
        """Return the move of both, one after the other."""
        cos, sin = later.scale * math.cos(later.turn), later.scale * math.sin(later.turn)
        return Move(cos * self.x - sin * self.y + later.x, sin * self.x + cos * self.y + later.y,
                    self.scale * later.scale, self.turn + later.turn)

    def described(self, width: int) -> str:
        """Say how the camera has moved, which is the other way, in pixels of a frame of that width."""
        parts = []
        for value, names in ((-self.x * width, ("left", "right")), (-self.y * width, ("up", "down"))):
            if abs(value) >= 0.5:
                parts.append(f"{abs(value):.1f} px {names[value > 0]}")
        if abs(self.scale - 1) >= 0.01:
            parts.append(f"zoom {self.scale:.2f}")
        if abs(self.turn) >= math.radians(0.3):
            parts.append(f"roll {-math.degrees(self.turn):.1f}°")
        return ", ".join(parts) or "no motion"


def small_grey(images: torch.Tensor) -> torch.Tensor:
    """Return frames (F, H, W, 3) in grey as `align` compares them, (F, h, w), LEAST_SIDE to SIDE pixels a side."""
    height, width = images.shape[1:3]
    share = min(1.0, SIDE / max(height, width))
    size = tuple(max(LEAST_SIDE, round(side * share)) for side in (height, width))
    grey = images.mean(-1)[:, None]
    return F.interpolate(grey, size, mode="bilinear", antialias=True, align_corners=False)[:, 0]


def align(before: torch.Tensor, after: torch.Tensor) -> Move:
    """Return where the content of one frame (H, W) is in another: the best of what is found from several scales."""
    width = before.shape[1]
    right, down = phase_correlation(before, after)
    levels = [level for level in LEVELS if min(before.shape) // level >= LEAST_SIDE]
    found, least = torch.tensor([1.0, 0.0, 0.0, 0.0]), math.inf
    for scale in SCALES:
        guess = torch.tensor([scale, 0.0, right / width, down / width])  # scale cos, scale sin, x, y in widths
        for level in levels:
            small = [F.avg_pool2d(frame[None, None], level)[0, 0] for frame in (before, after)]
            for _ in range(ITERATIONS):
                step, error = _gauss_newton(*small, guess)
                guess = guess + step
        if error < least:
            found, least = guess, error
    return Move(float(found[2]), float(found[3]), math.hypot(*found[:2].tolist()),
                math.atan2(float(found[1]), float(found[0])))


def phase_correlation(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float]:
    """Return the shift of the content in whole pixels, right and down, by the phases of two frames (H, W)."""
    height, width = before.shape
    window = torch.outer(torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False))
    one, other = (torch.fft.rfft2((frame - frame.mean()) * window) for frame in (before, after))
    cross = other * one.conj()
    peaks = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-9), s=(height, width))
    row, column = divmod(int(peaks.argmax()), width)
    return (column + width // 2) % width - width // 2, (row + height // 2) % height - height // 2


def _gauss_newton(before: torch.Tensor, after: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the change (4,) of `found` that brings two frames (H, W) closer, and how far apart they were."""
    height, width = before.shape
    aspect = height / width
    xs = (torch.arange(width) + 0.5) / width - 0.5
    ys = ((torch.arange(height) + 0.5) / height - 0.5) * aspect
    x, y = torch.meshgrid(xs, ys, indexing="xy")
    cos, sin, right, down = found
    at = torch.stack([cos * x - sin * y + right, sin * x + cos * y + down], -1)
    grid = at * torch.tensor([2.0, 2.0 / aspect])
    slopes = torch.gradient(after, spacing=(1 / width, 1 / width))
    down_slope, right_slope, moved = F.grid_sample(torch.stack([*slopes, after])[None], grid[None], mode="bilinear",
                                                   padding_mode="border", align_corners=False)[0]
    error = before - moved
    seen = (grid.abs() <= 1).all(-1)
    spread = 1.5 * error[seen].abs().median().clamp(min=1e-3) if bool(seen.any()) else torch.tensor(1.0)
    weight = seen / (1 + (error / spread) ** 2)
    parts = torch.stack([right_slope * x + down_slope * y, down_slope * x - right_slope * y, right_slope, down_slope])
    weighted = (parts * weight).flatten(1)
    normal = weighted @ parts.flatten(1).T
    normal = normal + torch.eye(4) * (1e-6 + 1e-4 * normal.diagonal().mean())
    apart = float(error[seen].abs().mean()) if bool(seen.any()) else math.inf
    return torch.linalg.solve(normal, weighted @ error.flatten()), apart
