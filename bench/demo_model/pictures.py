"""Pictures to train and to test the demo model on: procedural ones, and photographs that packages ship.

Photographs come from scikit-image (`skimage.data`, public domain or CC0 pictures of its wheel) and scikit-learn
(`sklearn.datasets.load_sample_images`, CC BY 2.0). None shows a person. The held-out ones are never trained on.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F

TRAIN_PHOTOS = ("chelsea", "hubble_deep_field", "motorcycle", "immunohistochemistry", "brick", "gravel", "coins",
                "moon", "grass", "retina", "china")
HELD_OUT_PHOTOS = ("coffee", "rocket", "flower")


@cache
def photo(name: str) -> torch.Tensor:
    """One photograph, (3, H, W) float 0..1."""
    import numpy as np
    import skimage.data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        pixels = load_sample_image(f"{name}.jpg")
    elif name == "motorcycle":
        pixels = skimage.data.stereo_motorcycle()[0]
    else:
        pixels = getattr(skimage.data, name)()
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, -1)
    return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1).float() / 255


def _rand(g: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=g).item()


def photo_canvas(height: int, width: int, names: tuple[str, ...], g: torch.Generator, augment: bool) -> torch.Tensor:
    """A random piece of a photograph, scaled to (3, height, width), 0..1; augmented: mirrored, recoloured."""
    source = photo(names[int(_rand(g) * len(names))])
    if augment and _rand(g) < 0.15:
        source = source.transpose(1, 2)
    fit = min(source.shape[1] / height, source.shape[2] / width)
    zoom = fit * _rand(g, 0.45, 1.0)
    h, w = int(height * zoom), int(width * zoom)
    top, left = int(_rand(g) * (source.shape[1] - h)), int(_rand(g) * (source.shape[2] - w))
    piece = source[None, :, top : top + h, left : left + w]
    piece = F.interpolate(piece, (height, width), mode="bilinear", antialias=True, align_corners=False)[0]
    if not augment:
        return piece
    if _rand(g) < 0.5:
        piece = piece.flip(-1)
    if _rand(g) < 0.1:
        piece = piece.flip(-2)
    if _rand(g) < 0.35:
        piece = piece[torch.randperm(3, generator=g)]
    mix = torch.eye(3) * _rand(g, 0.7, 1.1) + 0.25 * (torch.rand(3, 3, generator=g) - 0.4)
    if _rand(g) < 0.5:
        piece = torch.einsum("ij,jhw->ihw", mix, piece)
    return (piece.clamp(0, 1) ** math.exp(_rand(g, -0.35, 0.35)) * _rand(g, 0.7, 1.0)).clamp(0, 1)


def procedural_canvas(height: int, width: int, g: torch.Generator) -> torch.Tensor:
    """Smooth colour fields, ellipses, boxes, stripes and soft noise: (3, height, width), 0..1."""
    out = torch.rand(3, 1, 1, generator=g) * 0.6 + 0.2
    for n, strength in ((2, 0.6), (4, 0.5), (8, 0.35), (16, 0.2), (40, _rand(g, 0, 0.2))):
        field = torch.rand(1, 3, n, n, generator=g) - 0.5
        if _rand(g) < 0.3:
            field = field[:, :1].expand(-1, 3, -1, -1)
        out = out + strength * F.interpolate(field, (height, width), mode="bicubic", align_corners=False)[0]
    yy, xx = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    size = min(height, width)
    for _ in range(int(_rand(g, 2, 14))):
        cx, cy = _rand(g) * width, _rand(g) * height
        rx, ry = (size * math.exp(_rand(g, math.log(0.03), math.log(0.22))) for _ in range(2))
        angle = _rand(g) * math.pi
        u = ((xx - cx) * math.cos(angle) + (yy - cy) * math.sin(angle)) / rx
        v = ((yy - cy) * math.cos(angle) - (xx - cx) * math.sin(angle)) / ry
        distance = (u * u + v * v).sqrt() if _rand(g) < 0.5 else torch.maximum(u.abs(), v.abs())
        mask = torch.sigmoid((1 - distance) * min(rx, ry) * 1.5)
        colour = torch.rand(3, 1, 1, generator=g)
        if _rand(g) < 0.3:
            colour = colour + 0.2 * torch.sin(u * _rand(g, 3, 7))
        if _rand(g) < 0.3:
            colour = colour * (1 - 0.35 * v.clamp(-1, 1))
        out = out * (1 - mask) + colour * mask
    return out.clamp(0, 1)


def masts_canvas(height: int, width: int, g: torch.Generator) -> torch.Tensor:
    """Thin masts, some with rungs, before a plain sky, upright or lying: (3, height, width), 0..1.

    Along a mast little shows that it moves, so that pans along it are the hardest.
    """
    yy, xx = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    top, bottom = (torch.rand(3, 1, 1, generator=g) * 0.7 + 0.1 for _ in range(2))
    out = top + (bottom - top) * (yy / height) ** math.exp(_rand(g, -1, 1))
    for _ in range(int(_rand(g, 2, 9))):
        x, half = _rand(g) * width, math.exp(_rand(g, 0, math.log(9)))
        start, end = sorted(_rand(g, -0.3, 1.3) * height for _ in range(2))
        lean = _rand(g, -0.08, 0.08)
        across = (xx - x - lean * (yy - start)).abs()
        mask = torch.sigmoid((half - across) * 2) * torch.sigmoid((yy - start) * 2) * torch.sigmoid((end - yy) * 2)
        colour = torch.rand(3, 1, 1, generator=g)
        if _rand(g) < 0.6:  # rungs
            colour = colour + 0.35 * torch.sin(yy * _rand(g, 0.15, 1.0)) * (across < half - 1)
        out = out * (1 - mask) + colour * mask
    out = out + _rand(g, 0, 0.03) * torch.randn(3, height, width, generator=g)
    return (out.transpose(1, 2) if height == width and _rand(g) < 0.4 else out).clamp(0, 1)


def canvas(height: int, width: int, g: torch.Generator, held_out: bool = False) -> torch.Tensor:
    """A picture (3, height, width), 0..1: half of them drawn (to train on, masts too), half photographs."""
    if _rand(g) < 0.5:
        drawn = masts_canvas if not held_out and _rand(g) < 0.3 else procedural_canvas
        return drawn(height, width, g)
    return photo_canvas(height, width, HELD_OUT_PHOTOS if held_out else TRAIN_PHOTOS, g, augment=not held_out)
