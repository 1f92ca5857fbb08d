"""Cross-fade: one clip's last frames into another's first."""

from __future__ import annotations

import torch


def cross_fade(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return frames (n, H, W, 3) that go evenly from those of one clip to those of another, at the same moments.

    No frame is wholly of one clip: the share of `after` goes from 1/(n+1) to n/(n+1).
    """
    share = torch.arange(1, len(before) + 1, dtype=before.dtype, device=before.device) / (len(before) + 1)
    return torch.lerp(before, after, share[:, None, None, None])
