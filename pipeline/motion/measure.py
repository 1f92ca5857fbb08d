"""How the camera of a clip has moved, measured on its frames, beside how its path asked.

What is asked is found from frame to frame of the animatic, which is clean. What a clip does is found from each frame of
the animatic to the clip's at that time: from frame to frame of the clip itself, noise and the pattern of a VAE, which
stay in place, would pass for rest.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch

from ..request import RequestError
from .align import Move, align, small_grey
from .motion import Motion

STEP = 4
"""Frames between two that are compared."""


@dataclass(frozen=True)
class Deviation:
    """A path asked for and the motion found, from the first frame to the last."""

    asked: Move
    found: Move
    largest: float
    """Largest distance, in widths of the frame, between where the middle of the first frame should be and is."""

    def described(self, width: int) -> str:
        """Say both in pixels of a frame of that width."""
        return (f"camera path: {self.asked.described(width)}; found: {self.found.described(width)}; at most "
                f"{self.largest * width:.1f} px apart")


def check_frames(motion: Motion, latent_shape: tuple[int, ...]) -> None:
    """Raise RequestError for the latents (1, 16, T, h, w) of a clip that is not of the motion's size and length."""
    if motion.latent_shape != tuple(latent_shape):
        *_, length, height, width = latent_shape
        raise RequestError(f"The motion is for {motion.num_frames} frames of {motion.width}x{motion.height}, the "
                           f"latent is of {4 * (length - 1) + 1} of {8 * width}x{8 * height}. Connect the motion that "
                           "the sampler had.")


def deviation(images: torch.Tensor, motion: Motion) -> Deviation:
    """Measure the frames of a clip (F, H, W, 3) against the path of its motion."""
    wanted, got = _chosen(motion.animatic.images), _chosen(images)
    asked = [Move()]
    for before, after in itertools.pairwise(wanted):
        asked.append(asked[-1].then(align(before, after)))
    found = [move.then(align(*frames)) for move, *frames in zip(asked, wanted, got, strict=True)]
    apart = [math.hypot(a.x - b.x, a.y - b.y) for a, b in zip(asked, found, strict=True)]
    return Deviation(asked[-1], found[-1], max(apart))


def _chosen(images: torch.Tensor) -> torch.Tensor:
    """Return every STEP-th frame of a clip (F, H, W, 3) and the last, small and grey."""
    return small_grey(images[[*range(0, len(images) - 1, STEP), len(images) - 1]])
