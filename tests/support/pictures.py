"""Smooth pictures."""

from __future__ import annotations

import torch


def enlarged(coarse: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return colours (N, 3, h, w), 0..1, as soft blobs of a larger IMAGE (N, height, width, 3)."""
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth.clamp(0, 1).movedim(1, -1)
