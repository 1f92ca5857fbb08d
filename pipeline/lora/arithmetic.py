"""The formulas of the adapter types: what a patch of a LoRA file does to the weight of one module.

At scale s every patch changes a weight W by s (W' - W), where W' is the weight that was trained:

    LoRA    W' = W + a B A                a is alpha / rank; with a Tucker kernel between B and A
    LoHa    W' = W + a (B1 A1) * (B2 A2)
    LoKr    W' = W + a kron(W1, W2)
    GLoRA   W' = W + a (W A2 A1 + B2 B1)
    DoRA    W' = m S / |S|                S is the W' of one of these (arXiv:2402.09353, equation 5)
    OFT     W' = z R^T W                  R = (I + Q) (I - Q)^-1 by blocks, Q = P - P^T, z rescales outputs
    BOFT    the same with several R, each of other rows (arXiv:2311.06243)

Sources: lycoris/modules/ of github.com/KohakuBlueleaf/LyCORIS, src/peft/tuners/lora/ of github.com/huggingface/peft.
ComfyUI 0.30's own (comfy/weight_adapter/) squares the scale of OFT and BOFT and leaves out OFT's z, limits Q to alpha
instead of alpha times the outputs, divides DoRA's rows by |W|, sets `set_weight` at any scale, and takes no adapters
of 3-D convolutions but LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .adapters import DIFFERENCES, DOWN, GLORA_PARTS, HADA, LOKR_SIDES, MID, UP, is_old_glora

Parts = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class ModulePatch:
    """A patch of one parameter, a Change: its parts by ComfyUI's names, and two numbers.

    `factor` is alpha / rank. `constraint` is the largest norm of OFT's Q, 0 for none.
    """

    parts: Parts
    factor: float = 1.0
    constraint: float = 0.0

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Change a weight, contiguous, of float32 or float64, in place. Raises RuntimeError when a shape is wrong."""
        # First to the device and then to the dtype: the other way would send twice the bytes.
        parts = {name: part.to(weight.device).to(weight.dtype) for name, part in self.parts.items()}
        if "set_weight" in parts:
            weight.lerp_(parts["set_weight"].reshape(weight.shape), scale)
        elif "oft_blocks" in parts:
            weight.lerp_(_rotated(weight, parts, self.constraint), scale)
        elif "dora_scale" in parts:
            summed = weight.clone()
            _add(summed, parts, self.factor)
            weight.lerp_(_with_magnitude(summed, parts["dora_scale"]), scale)
        else:
            _add(weight, parts, self.factor, scale)

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """See Change: of a plain LoRA."""
        if self.parts.keys() != {UP, DOWN}:
            return None
        return self.parts[UP].flatten(1), self.parts[DOWN].flatten(1), self.factor

    def changes_nothing(self) -> bool:
        """Tell whether every weight stays what it is, as with an up matrix of zeros."""
        zero = {name for name, part in self.parts.items() if not part.to(torch.float32).any()}
        if not self.parts.keys().isdisjoint(("set_weight", "dora_scale")):
            return False
        if "oft_blocks" in self.parts:
            blocks, rescale = self.parts["oft_blocks"].float(), self.parts.get("rescale")
            return bool((blocks == blocks.mT).all()) and (rescale is None or bool((rescale == 1).all()))
        products = [{UP, DOWN, MID}, {*HADA, "hada_t1", "hada_t2"},
                    {*LOKR_SIDES, *(f"{side}_{half}" for side in LOKR_SIDES for half in "ab"), "lokr_t2"},
                    {"a1.weight", "a2.weight"}, {"b1.weight", "b2.weight"}]
        added = [{part} for part in DIFFERENCES] + (products if self.factor else [])
        return all(product & zero for product in added if product & self.parts.keys())


def _add(weight: torch.Tensor, parts: Parts, factor: float, scale: float = 1.0) -> None:
    """Add what the additive types add, times the scale, in place."""
    for name, formula in ADDED.items():
        if name in parts or f"{name}_a" in parts:
            weight.add_(formula(weight, parts).reshape(weight.shape), alpha=factor * scale)
    if UP in parts and MID not in parts:  # fused: the product of two small matrices is never held as a large one
        weight.view(len(weight), -1).addmm_(parts[UP].flatten(1), parts[DOWN].flatten(1), alpha=factor * scale)
    for name in DIFFERENCES:
        if name in parts:
            weight.add_(parts[name].reshape(weight.shape), alpha=scale)


def _tucker_lora(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    return torch.einsum("mn...,om,ni->oi...", parts[MID], parts[UP].flatten(1), parts[DOWN].flatten(1))


def _tucker(kernel: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return torch.einsum("mn...,mo,ni->oi...", kernel, outputs, inputs)


def _loha(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    factors = []
    for number in "12":
        left, right = parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"]
        kernel = parts.get(f"hada_t{number}")
        factors.append(left @ right.flatten(1) if kernel is None else _tucker(kernel, left, right))
    return factors[0].mul_(factors[1])


def _lokr(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    one, two = (parts[side] if side in parts else
                _tucker(parts["lokr_t2"], parts[f"{side}_a"], parts[f"{side}_b"]).contiguous()
                if side == "lokr_w2" and "lokr_t2" in parts else parts[f"{side}_a"] @ parts[f"{side}_b"].flatten(1)
                for side in LOKR_SIDES)
    return torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two)


def _glora(weight: torch.Tensor, parts: Parts) -> torch.Tensor:
    a1, a2, b1, b2 = (parts[name] for name in GLORA_PARTS)
    if is_old_glora({name: tuple(parts[name].shape) for name in GLORA_PARTS}):
        a1, a2, b1, b2 = a2, a1, b2, b1
    beside = torch.einsum("oi...,ir,rj->oj...", weight, a1.flatten(1), a2.flatten(1))
    return beside + (b1.flatten(1) @ b2.flatten(1)).reshape(weight.shape)


ADDED: dict[str, Callable[[torch.Tensor, Parts], torch.Tensor]] = {
    MID: _tucker_lora, "hada_w1": _loha, "lokr_w1": _lokr, "a1.weight": _glora}
"""A part that tells the type, with or without `_a` behind it -> its W' - W, without alpha / rank."""


def _with_magnitude(summed: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Return the sum with rows, or columns, of the lengths given.

    Magnitudes of shape (1, in, 1, ...) are those of inputs (LyCORIS of old). Those of outputs are (out, 1, ...), (out,)
    and, in PEFT's convolutions, (1, out, 1, ...).
    """
    of_inputs = magnitude.ndim > 1 and magnitude.shape[0] == 1 and magnitude.numel() == summed.shape[1]
    kept = 1 if of_inputs else 0
    length = torch.linalg.vector_norm(summed, dim=[axis for axis in range(summed.ndim) if axis != kept], keepdim=True)
    return summed * (magnitude.reshape(length.shape) / length.clamp_min(torch.finfo(summed.dtype).eps))


def _rotated(weight: torch.Tensor, parts: Parts, constraint: float) -> torch.Tensor:
    blocks = parts["oft_blocks"]
    skew = blocks - blocks.mT
    if constraint:
        skew = skew * (constraint / (torch.linalg.vector_norm(skew) + 1e-8)).clamp(max=1.0)
    unit = torch.eye(blocks.shape[-1], device=weight.device, dtype=weight.dtype)
    rotations = torch.linalg.solve(unit - skew, unit + skew, left=False)
    if blocks.ndim == 3:
        turned = torch.einsum("knm,kn...->km...", rotations, weight.unflatten(0, blocks.shape[:2])).flatten(0, 1)
    else:
        turned = _butterfly(weight, rotations)
    rescale = parts.get("rescale")
    return turned if rescale is None else turned * rescale.reshape(-1, *[1] * (weight.ndim - 1))


def _butterfly(weight: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Return the weight after each rotation (stage, block, b, b), of rows that lie 2^stage b / 2 apart."""
    size = rotations.shape[-1]
    for stage, rotation in enumerate(rotations):
        apart = 2**stage * (size // 2)
        mixed = weight.unflatten(0, (-1, 2, apart)).transpose(1, 2).flatten(0, 2).unflatten(0, (-1, size))
        mixed = torch.einsum("bij,bj...->bi...", rotation, mixed).flatten(0, 1)
        weight = mixed.unflatten(0, (-1, apart, 2)).transpose(1, 2).flatten(0, 2)
    return weight
