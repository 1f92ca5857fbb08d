"""Scales beside a quantised matrix that are not ComfyUI's: one a matrix, one a row, or one a block.

Files have them as `weight_scale` (github.com/vllm-project/compressed-tensors), `weight_scale_inv`, which multiplies all
the same (github.com/deepseek-ai/DeepSeek-V3, inference/kernel.py, blocks of 128), or `scale_weight` of several numbers.
"""

from __future__ import annotations

import math

BLOCK = 128
"""The usual side of a block, whose last one in a row or column may be cut off."""
STORED = ("F8_E4M3", "F8_E5M2", "I8")
"""Dtypes of such matrices, by safetensors' names: a number times its scale is the weight."""
NAMES = (".weight_scale", ".weight_scale_inv", ".scale_weight")
Shape = tuple[int, ...]


def block_sizes(matrix: Shape, scale: Shape) -> tuple[int, int] | None:
    """Return the rows and columns that share one scale; None when the scales do not fit a matrix (out, in)."""
    if len(matrix) != 2 or len(scale) > 2:
        return None
    if math.prod(scale) == 1:
        return matrix[0], matrix[1]
    counts = (*scale, 1)[:2]
    sizes = tuple(_side(side, count) for side, count in zip(matrix, counts, strict=True))
    return None if None in sizes else sizes


def _side(side: int, count: int) -> int | None:
    """Return the length of each of `count` blocks along a side; None when they do not fit."""
    if -(-side // BLOCK) == count and count > 1:
        return BLOCK
    return side // count if count and side % count == 0 else None


def misfit(dtypes: dict[str, str], shapes: dict[str, Shape]) -> str | None:
    """Return the first of a file's scales that no weight of a known dtype fits; None when all do."""
    for name, shape in shapes.items():
        ending = next((ending for ending in NAMES if name.endswith(ending)), None)
        if ending is None:
            continue
        weight = name.removesuffix(ending) + ".weight"
        if dtypes.get(weight) not in STORED or block_sizes(shapes[weight], shape) is None:
            return name
    return None


def has_several(shapes: dict[str, Shape]) -> bool:
    """True when a scale of the file is of more than one number."""
    return any(name.endswith(NAMES) and math.prod(shape) > 1 for name, shape in shapes.items())
