"""Which matrix a LoRA's tensors multiply out to, told from their shapes.

Names of the parts: ComfyUI's comfy/weight_adapter (lora.py, loha.py, lokr.py); formulas: LyCORIS, docs/Guidelines.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

Shape = tuple[int, ...]

_UP_DOWN = (("lora_up.weight", "lora_down.weight"), ("lora_B.weight", "lora_A.weight"),
            ("lora_B.default.weight", "lora_A.default.weight"), ("lora.up.weight", "lora.down.weight"),
            ("lora_B", "lora_A"))


def as_matrix(shape: Shape) -> tuple[int, int]:
    """A weight of any shape as rows and columns: a convolution's other axes count as columns."""
    return shape[0], prod(shape[1:])


def delta_shape(parts: Mapping[str, Shape]) -> tuple[int, int] | None:
    """Rows and columns of the change that one module's tensors (part's name -> shape) make; None when not known.

    LoRA: up @ down. LoHa: (w1_a @ w1_b) * (w2_a @ w2_b). LoKr: the Kronecker product of w1 and w2, each whole or as
    a product of two. `diff` is the change itself.
    """
    for up, down in _UP_DOWN:
        if up in parts and down in parts:
            return parts[up][0], prod(parts[down][1:])
    if "hada_w1_a" in parts and "hada_w1_b" in parts and "hada_t1" not in parts:
        return parts["hada_w1_a"][0], prod(parts["hada_w1_b"][1:])
    if "diff" in parts:
        return as_matrix(parts["diff"])
    factors = [_kronecker_factor(parts, which) for which in ("lokr_w1", "lokr_w2")]
    if None not in factors and "lokr_t2" not in parts:
        (a, p), (b, q) = factors
        return a * b, p * q
    return None


def _kronecker_factor(parts: Mapping[str, Shape], which: str) -> tuple[int, int] | None:
    if which in parts:
        return as_matrix(parts[which])
    if f"{which}_a" in parts and f"{which}_b" in parts:
        return parts[f"{which}_a"][0], prod(parts[f"{which}_b"][1:])
    return None
