"""Kinds of patch in LoRA files, and the rank and sizes that the shapes of a patch's parts show.

Parts and shapes as ComfyUI 0.30 reads them: comfy/lora.py `load_lora`, comfy/weight_adapter/{lora,loha,lokr}.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Shape = tuple[int, ...]


class Adapter(str, Enum):
    """A kind of patch; the value is its name in messages."""

    LORA = "LoRA"
    DORA = "DoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    OFT = "OFT"
    GLORA = "GLoRA"
    DIFFERENCE = "whole difference"


UP, DOWN, MID = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
GLORA_PARTS = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
DIFFERENCES = ("diff", "diff_b", "set_weight", "w_norm", "b_norm")
MARKS = (
    (Adapter.LORA, (UP, DOWN)),
    (Adapter.LOHA, (*HADA, "hada_t1", "hada_t2")),
    (Adapter.LOKR, ("lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2")),
    (Adapter.OFT, ("oft_blocks",)),
    (Adapter.GLORA, GLORA_PARTS),
    (Adapter.DIFFERENCE, DIFFERENCES),
)
"""Kind -> its parts; the first match decides, because a LoRA may also have the difference of its bias."""


@dataclass(frozen=True)
class PatchShape:
    """The rank of a patch, and the sizes of its module as far as the patch shows them.

    `sizes`: outputs and inputs; a convolution's inputs include its kernel. `channels`: a convolution's input channels.
    """

    rank: int | None
    sizes: tuple[int | None, int | None]
    channels: int | None


def adapter_of(parts: Mapping[str, Shape]) -> Adapter | None:
    """Return the kind of one module's patch; None when its parts, such as an alpha alone, change nothing."""
    kind = next((kind for kind, marks in MARKS if any(mark in parts for mark in marks)), None)
    return Adapter.DORA if kind is Adapter.LORA and "dora_scale" in parts else kind


def _shapes_of(parts: Mapping[str, Shape], wanted: tuple[str, ...]) -> list[Shape]:
    """Return the shapes of the wanted parts. Raises ValueError when one is missing, flat or empty."""
    missing = [part for part in wanted if part not in parts]
    if missing:
        there = next(part for part in parts if part != "alpha")
        raise ValueError(f"has {there} without {missing[0]}")
    for part in wanted:
        if len(parts[part]) < 2 or 0 in parts[part]:
            raise ValueError(f"has {part} of shape {list(parts[part])}")
    return [parts[part] for part in wanted]


def _check_ranks(what: str, one: int, other: int) -> None:
    """Raise ValueError unless two ranks are equal."""
    if one != other:
        raise ValueError(f"has ranks {one} and {other} in {what}, which should be the same")


def _lora(parts: Mapping[str, Shape]) -> PatchShape:
    up, down = _shapes_of(parts, (UP, DOWN))
    if MID in parts:  # of a convolution: up and down are without the kernel, which mid has
        (mid,) = _shapes_of(parts, (MID,))
        _check_ranks(f"{UP} and {MID}", up[1], mid[0])
        _check_ranks(f"{DOWN} and {MID}", down[0], mid[1])
    else:
        _check_ranks(f"{UP} and {DOWN}", up[1], down[0])
    return PatchShape(down[0], (up[0], math.prod(down[1:])), down[1])


def _loha(parts: Mapping[str, Shape]) -> PatchShape:
    one_a, one_b, two_a, two_b = _shapes_of(parts, HADA)
    if "hada_t1" in parts or "hada_t2" in parts:  # of a convolution: the outer dimensions are the other way round
        _shapes_of(parts, ("hada_t1", "hada_t2"))
        return PatchShape(one_b[0], (one_a[1], one_b[1]), one_b[1])
    _check_ranks("hada_w1_a and hada_w1_b", one_a[1], one_b[0])
    _check_ranks("hada_w2_a and hada_w2_b", two_a[1], two_b[0])
    return PatchShape(one_b[0], (one_a[0], one_b[1]), one_b[1])


def _lokr(parts: Mapping[str, Shape]) -> PatchShape:
    outputs, inputs, rank = 1, 1, None
    for side in ("lokr_w1", "lokr_w2"):
        if side in parts:
            (whole,) = _shapes_of(parts, (side,))
            outputs, inputs = outputs * whole[0], inputs * math.prod(whole[1:])
            continue
        left, right = _shapes_of(parts, (f"{side}_a", f"{side}_b"))
        if side == "lokr_w2" and "lokr_t2" in parts:
            left, right = left[::-1], right
        else:
            _check_ranks(f"{side}_a and {side}_b", left[1], right[0])
        outputs, inputs, rank = outputs * left[0], inputs * math.prod(right[1:]), right[0]
    return PatchShape(rank, (outputs, inputs), None)


def patch_shape(kind: Adapter, parts: Mapping[str, Shape]) -> PatchShape:
    """Return the rank and sizes that the shapes of one module's parts show.

    Raises ValueError, with a clause that follows the module's name, for parts that are missing, empty or of different
    ranks.
    """
    if kind in (Adapter.LORA, Adapter.DORA):
        return _lora(parts)
    if kind is Adapter.LOHA:
        return _loha(parts)
    if kind is Adapter.LOKR:
        return _lokr(parts)
    if kind is Adapter.GLORA:
        _shapes_of(parts, GLORA_PARTS)
        return PatchShape(None, (None, None), None)
    shape = parts.get("diff", parts.get("set_weight"))
    if shape is None or len(shape) < 2:
        return PatchShape(None, (None, None), None)
    return PatchShape(None, (shape[0], math.prod(shape[1:])), shape[1])
