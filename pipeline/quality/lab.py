"""Colours in CIE L*a*b*, in which equal distances look about equally large.

sRGB of IEC 61966-2-1, white point D65 of the two-degree observer (x 0.3127, y 0.3290), L*a*b* of CIE 15.
"""

from __future__ import annotations

import torch

_RGB_TO_XYZ = torch.tensor([[0.4124564, 0.3575761, 0.1804375],
                            [0.2126729, 0.7151522, 0.0721750],
                            [0.0193339, 0.1191920, 0.9503041]])
"""Of linear light, at D65 (brucelindbloom.com, "RGB/XYZ Matrices"); a row's sum is a component of white."""
_WHITE = _RGB_TO_XYZ.sum(1)
_EPSILON = (6 / 29) ** 3
"""Below this share of white, the cube root is a straight line."""
_SLOPE = (29 / 6) ** 2 / 3


def rgb_to_lab(pixels: torch.Tensor) -> torch.Tensor:
    """Return sRGB pixels (..., 3), float 0..1, as L* 0..100, a* and b* about -110..110 (..., 3)."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    share = linear @ (_RGB_TO_XYZ.T / _WHITE).to(pixels)
    bent = torch.where(share > _EPSILON, share.clamp(min=_EPSILON) ** (1 / 3), _SLOPE * share + 4 / 29)
    x, y, z = bent.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """Return L*a*b* pixels (..., 3) as sRGB (..., 3), float 0..1; colours that sRGB has not are clipped to it."""
    lightness, a, b = lab.unbind(-1)
    y = (lightness + 16) / 116
    bent = torch.stack([y + a / 500, y, y - b / 200], -1)
    share = torch.where(bent > 6 / 29, bent**3, (bent - 4 / 29) / _SLOPE)
    linear = share @ (_WHITE[:, None] * torch.linalg.inv(_RGB_TO_XYZ).T).to(lab)
    return torch.where(linear <= 0.0031308, linear * 12.92,
                       1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055).clamp(0, 1)


def mean_lab(frames: torch.Tensor) -> torch.Tensor:
    """Return the mean colour in L*a*b* of each frame (F, H, W, 3), as (F, 3)."""
    return torch.stack([rgb_to_lab(frame).mean((0, 1)) for frame in frames])
