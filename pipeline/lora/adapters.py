"""Adapter types of LoRA files, and the rank and sizes that the shapes of a patch's parts show.

Parts and shapes: comfy/lora.py and comfy/weight_adapter/ of ComfyUI 0.30, lycoris/modules/ of
github.com/KohakuBlueleaf/LyCORIS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Shape = tuple[int, ...]


class Adapter(str, Enum):
    """An adapter type; the value is its name in messages."""

    LORA = "LoRA"
    DORA = "DoRA"
    LOHA = "LoHa"
    LOKR = "LoKr"
    OFT = "OFT"
    BOFT = "BOFT"
    GLORA = "GLoRA"
    DIFFERENCE = "whole difference"


UP, DOWN, MID = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
HADA_TUCKER = ("hada_t1", "hada_t2")
LOKR_SIDES = ("lokr_w1", "lokr_w2")
GLORA_PARTS = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
DIFFERENCES = ("diff", "w_norm")
"""Added to the weight as they are."""
UP_BIAS = "lora_up.bias"
OF_BIAS = ("diff_b", "b_norm", UP_BIAS)
"""Added to the bias: the last of them times alpha / rank, as PEFT's lora_bias is."""
PARTS = {
    Adapter.LORA: (UP, DOWN, MID, UP_BIAS, "reshape_weight"),
    Adapter.LOHA: (*HADA, *HADA_TUCKER),
    Adapter.LOKR: (*LOKR_SIDES, "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    Adapter.OFT: ("oft_blocks", "rescale"),
    Adapter.GLORA: GLORA_PARTS,
    Adapter.DIFFERENCE: (*DIFFERENCES, "set_weight", "diff_b", "b_norm"),
}
"""Type -> its parts; the first match decides, because a LoRA may also have the difference of its bias."""
MARKS = {kind: set(parts) - {"reshape_weight", "rescale", UP_BIAS} for kind, parts in PARTS.items()}
"""Type -> the parts that tell it."""
WITH_MAGNITUDE = (Adapter.LORA, Adapter.LOHA, Adapter.LOKR, Adapter.GLORA)


@dataclass(frozen=True)
class PatchShape:
    """The rank of a patch, and the sizes of its module as far as the patch shows them.

    `sizes`: outputs and inputs; a convolution's inputs include its kernel. `channels`: a convolution's input channels.
    """

    rank: int | None
    sizes: tuple[int | None, int | None]
    channels: int | None = None


def _types(parts: Mapping[str, Shape]) -> list[Adapter]:
    return [kind for kind, marks in MARKS.items() if not marks.isdisjoint(parts)]


def adapter_of(parts: Mapping[str, Shape]) -> Adapter | None:
    """Return the type of one module's patch; None when its parts, such as an alpha alone, change nothing."""
    kind = next(iter(_types(parts)), None)
    if kind is Adapter.LORA and "dora_scale" in parts:
        return Adapter.DORA
    return Adapter.BOFT if kind is Adapter.OFT and len(parts["oft_blocks"]) == 4 else kind


def used_parts(parts: Mapping[str, Shape], has_bias: bool) -> set[str]:
    """Return the names of a patch's parts that act on a module, with a bias or without."""
    used = {part for kind in _types(parts) for part in PARTS[kind] if part in parts}
    used |= {part for part in ("alpha", "dora_scale") if used and part in parts}
    return used if has_bias else used.difference(OF_BIAS)


def _shapes_of(parts: Mapping[str, Shape], wanted: tuple[str, ...], least: int = 2) -> list[Shape]:
    """Return the shapes of the wanted parts. Raises ValueError when one is missing, flat or empty."""
    missing = [part for part in wanted if part not in parts]
    if missing:
        there = next(part for part in parts if part != "alpha")
        raise ValueError(f"has {there} without {missing[0]}")
    for part in wanted:
        if len(parts[part]) < least or 0 in parts[part]:
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
        return PatchShape(down[0], (up[0], math.prod((*down[1:], *mid[2:]))), down[1])
    _check_ranks(f"{UP} and {DOWN}", up[1], down[0])
    return PatchShape(down[0], (up[0], math.prod(down[1:])), down[1])


def _loha(parts: Mapping[str, Shape]) -> PatchShape:
    one_a, one_b, two_a, two_b = _shapes_of(parts, HADA)
    if not parts.keys().isdisjoint(HADA_TUCKER):  # of a convolution: the outer dimensions are the other way round
        (kernel, _) = _shapes_of(parts, HADA_TUCKER)
        return PatchShape(one_b[0], (one_a[1], math.prod((one_b[1], *kernel[2:]))), one_b[1])
    _check_ranks("hada_w1_a and hada_w1_b", one_a[1], one_b[0])
    _check_ranks("hada_w2_a and hada_w2_b", two_a[1], two_b[0])
    return PatchShape(one_b[0], (one_a[0], math.prod(one_b[1:])), one_b[1])


def _lokr(parts: Mapping[str, Shape]) -> PatchShape:
    outputs, inputs, rank = 1, 1, None
    for side in LOKR_SIDES:
        if side in parts:
            (whole,) = _shapes_of(parts, (side,))
            outputs, inputs = outputs * whole[0], inputs * math.prod(whole[1:])
            continue
        left, right = _shapes_of(parts, (f"{side}_a", f"{side}_b"))
        if side == "lokr_w2" and "lokr_t2" in parts:
            (kernel,) = _shapes_of(parts, ("lokr_t2",))
            left, right = left[::-1], (*right, *kernel[2:])
        else:
            _check_ranks(f"{side}_a and {side}_b", left[1], right[0])
        outputs, inputs, rank = outputs * left[0], inputs * math.prod(right[1:]), right[0]
    return PatchShape(rank, (outputs, inputs))


def _oft(parts: Mapping[str, Shape]) -> PatchShape:
    (blocks,) = _shapes_of(parts, ("oft_blocks",), least=3)
    if len(blocks) > 4 or blocks[-1] != blocks[-2]:
        raise ValueError(f"has oft_blocks of shape {list(blocks)}")
    outputs = blocks[-3] * blocks[-1]
    if "rescale" in parts and math.prod(parts["rescale"]) != outputs:
        raise ValueError(f"has rescale of shape {list(parts['rescale'])} for {outputs} outputs")
    return PatchShape(None, (outputs, None))


def is_old_glora(parts: Mapping[str, Shape]) -> bool:
    """Tell whether GLoRA's matrices stand as before LyCORIS 2: W A is W a2 a1 and B is b2 b1."""
    a1, a2, b1, b2 = (parts[part] for part in GLORA_PARTS)
    return not a1[1] == a2[0] == b1[1] == b2[0] and a2[1] == a1[0] == b2[1] == b1[0]


def _glora(parts: Mapping[str, Shape]) -> PatchShape:
    a1, a2, b1, b2 = _shapes_of(parts, GLORA_PARTS)
    up, down, rank = (b2, b1, a1[0]) if is_old_glora(parts) else (b1, b2, a2[0])
    _check_ranks("b1.weight and b2.weight", up[1], down[0])
    return PatchShape(rank, (up[0], math.prod(down[1:])), down[1])


SHAPES = {Adapter.LORA: _lora, Adapter.DORA: _lora, Adapter.LOHA: _loha, Adapter.LOKR: _lokr, Adapter.OFT: _oft,
          Adapter.BOFT: _oft, Adapter.GLORA: _glora}


def patch_shape(kind: Adapter, parts: Mapping[str, Shape]) -> PatchShape:
    """Return what the shapes of one module's parts tell.

    Raises ValueError, with a clause that follows the module's name, for parts that are missing, empty, of ranks that
    do not agree, or that do not go together.
    """
    _check_together(parts)
    if kind in SHAPES:
        return SHAPES[kind](parts)
    shape = next((parts[part] for part in (*DIFFERENCES, "set_weight") if part in parts), ())
    return PatchShape(None, (None, None)) if len(shape) < 2 else PatchShape(None, (shape[0], math.prod(shape[1:])),
                                                                            shape[1])


def _check_together(parts: Mapping[str, Shape]) -> None:
    """Raise ValueError for parts whose sum no trainer defines, and for an alpha of more than one number."""
    if math.prod(parts.get("alpha", ())) != 1:
        raise ValueError(f"has alpha of shape {list(parts['alpha'])}")
    types = [kind for kind in _types(parts) if kind is not Adapter.DIFFERENCE]
    dense = [part for part in (*DIFFERENCES, "set_weight") if part in parts]
    marks = [next(part for part in PARTS[kind] if part in parts) for kind in types] + dense
    if len(marks) > 1 and (types != [Adapter.LORA] or "set_weight" in parts or "dora_scale" in parts):
        raise ValueError(f"has {marks[0]} beside {marks[1]}, which do not go together")
    if "dora_scale" in parts and marks and not (types and types[0] in WITH_MAGNITUDE):
        raise ValueError(f"has dora_scale beside {marks[0]}, which do not go together")
