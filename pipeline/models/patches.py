"""LoRAs in force on a module: beside its linear layers where they are low-rank, else worked out on its weights.

A low-rank change of a layer is two thin matrix products beside it, y = W x + s B (A x). The weight stays as it is
stored, so that products of fp8 and int8 matrices stay in use, and a change of strength touches a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn


class Change(Protocol):
    """A change of one parameter, which adds scale times something to it; that of a bias does not depend on the bias."""

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Change a weight, contiguous, of float32 or float64, in place. Raises RuntimeError when a shape is wrong."""

    def low_rank(self) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Return up (out, rank), down (rank, in) and f, when the change is f up @ down and nothing else; or None."""


@dataclass(frozen=True)
class Patch:
    """A change to one parameter of a module while it runs."""

    parameter: str
    scale: float
    change: Change
    lora: Any = None
    """The request.Lora that the change is of."""


Scaled = Sequence[tuple[float, Change]]
"""(scale, change) of one parameter."""


def with_changes(weight: torch.Tensor, changes: Scaled) -> torch.Tensor:
    """Return the weight with changes, one after the other, in the weight's own dtype.

    The sum is worked out in float32 and rounded once; the weight given is not touched.
    """
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True).contiguous()
    for scale, change in changes:
        change.add_to(exact, scale)
    return exact.to(weight.dtype)


class ChangedWeight:
    """A function that makes changes on a copy of a weight at each use; the weight stays as it is stored."""

    def __init__(self, changes: Scaled) -> None:
        self.changes = changes

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        return with_changes(weight, self.changes)


class PatchedLayer(Protocol):
    """A linear layer that LoRAs change while it runs: y = f(W) x + b, then what is beside it is added to y."""

    in_features: int
    out_features: int
    compute_dtype: torch.dtype
    weight_function: list[Callable[[torch.Tensor], torch.Tensor]]
    """Each makes another weight of the weight, dequantised, at each use; ComfyUI's layers have it."""
    beside: Beside | None


class Beside:
    """Low-rank changes beside one linear layer, on the device where it runs and in its compute dtype.

    `down` (R, in) and `up` (out, R) hold the matrices of all changes, None when there are none; `scales` (R,), float32,
    the scale of each. `bias` (out,) is what is added to the bias, or None.
    """

    def __init__(self, of_weight: Scaled, of_bias: Scaled, layer: PatchedLayer, device: torch.device) -> None:
        self._changes = _changes(of_weight, of_bias)
        self._device = device
        self._given: list[float] = []
        self.down = self.up = self.scales = self.bias = None
        if of_weight:
            parts, dtype = [change.low_rank() for _, change in of_weight], layer.compute_dtype
            # To the device before the dtype: the other way may send twice the bytes.
            balanced = [_balanced(up.to(device), down.to(device)) for up, down, _ in parts]
            self.up = torch.cat([up.to(dtype) for up, _ in balanced], dim=1)
            self.down = torch.cat([down.to(dtype) for _, down in balanced])
            self.scales = torch.empty(self.down.shape[0], device=device)
        if of_bias:
            self.bias = torch.empty(layer.out_features, dtype=layer.compute_dtype, device=device)
        self.set_scales(of_weight, of_bias)

    def holds(self, of_weight: Scaled, of_bias: Scaled, device: torch.device) -> bool:
        """Tell whether it is made of these changes, at whatever scales, and on this device."""
        wanted = _changes(of_weight, of_bias)
        return (self._device == device and len(wanted) == len(self._changes)
                and all(one is other for one, other in zip(wanted, self._changes, strict=True)))

    def set_scales(self, of_weight: Scaled, of_bias: Scaled) -> None:
        """Give the changes that it holds these scales."""
        given = [scale for scale, _ in (*of_weight, *of_bias)]
        if given == self._given:
            return
        self._given = given
        if self.scales is not None:
            parts = [(scale, change.low_rank()) for scale, change in of_weight]
            self.scales.copy_(torch.cat([torch.full((len(down),), scale * factor)
                                         for scale, (_, down, factor) in parts]))
        if self.bias is not None:
            self.bias.copy_(with_changes(torch.zeros(len(self.bias)), of_bias))

    def add_to(self, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Add the changes' share for an input (..., in) to the layer's output (..., out), in place; return it."""
        rows = output.view(-1, output.shape[-1])
        if self.down is not None:
            inner = nn.functional.linear(x.reshape(-1, x.shape[-1]), self.down.to(x.dtype)).mul_(self.scales)
            rows.addmm_(inner, self.up.to(x.dtype).mT)
        if self.bias is not None:
            rows.add_(self.bias)
        return output


def _balanced(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two matrices of the same product whose largest values are alike, so that neither overflows in float16.

    By a power of two, which costs no precision. Matrices of which one is zero stay as they are.
    """
    largest = [float(matrix.abs().max()) for matrix in (up, down)]
    if not all(0.0 < value < math.inf for value in largest):
        return up, down
    factor = 2.0 ** round(math.log2(largest[0] / largest[1]) / 2)
    return (up, down) if 0.1 < factor < 10.0 else (up.float() / factor, down.float() * factor)


def _changes(of_weight: Scaled, of_bias: Scaled) -> list[Change]:
    return [change for _, change in (*of_weight, *of_bias)]


class PatchedParameters:
    """The parameters of a module that patches replace while they are in force."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._originals: dict[str, torch.Tensor] = {}

    def put(self, wanted: Mapping[str, Scaled]) -> None:
        """Restore the originals, then make these changes, by the name of the parameter."""
        for name, original in self._originals.items():
            parameter = self._module.get_parameter(name)
            parameter.data = original.to(parameter.device)
        self._originals = {name: self._module.get_parameter(name).data for name in wanted}
        for name, changes in wanted.items():
            self._module.get_parameter(name).data = with_changes(self._originals[name], changes)


class PatchedModule:
    """A module's linear layers and its other parameters, mostly norms, with the patches that are in force on them.

    Changing a LoRA reloads nothing.
    """

    def __init__(self, module: nn.Module) -> None:
        self._layers: dict[str, PatchedLayer] = {name: layer for name, layer in module.named_modules()
                                                 if hasattr(layer, "beside")}
        self._others = PatchedParameters(module)

    def put(self, patches: Iterable[Patch], device: torch.device) -> None:
        """Put exactly these patches in force; what is beside the layers is on the device from then on."""
        wanted = _by_parameter(patches)
        for name, layer in self._layers.items():
            of_weight, of_bias = wanted.pop(f"{name}.weight", []), wanted.pop(f"{name}.bias", [])
            beside = _beside(of_weight)
            on_weight = [] if beside else [(scale, change) for scale, change in of_weight if scale]
            layer.weight_function = [ChangedWeight(on_weight)] if on_weight else []
            if not beside and not of_bias:
                layer.beside = None
            elif layer.beside is not None and layer.beside.holds(beside, of_bias, device):
                layer.beside.set_scales(beside, of_bias)
            else:
                layer.beside = None  # so that its memory is free for the new one
                layer.beside = Beside(beside, of_bias, layer, device)
        self._others.put(wanted)

    def bytes_to_place(self, patches: Iterable[Patch], device: torch.device) -> int:
        """Return the device memory that `put` will take beside the layers, in bytes; 0 where it is in place."""
        wanted, found = _by_parameter(patches), 0
        for name, layer in self._layers.items():
            beside, of_bias = _beside(wanted.get(f"{name}.weight", [])), wanted.get(f"{name}.bias", [])
            if layer.beside is None or not layer.beside.holds(beside, of_bias, device):
                numbers = sum(matrix.numel() for _, change in beside for matrix in change.low_rank()[:2])
                found += (numbers + (layer.out_features if of_bias else 0)) * layer.compute_dtype.itemsize
        return found


def beside_bytes(patches: Iterable[Patch], itemsize: int) -> int:
    """Return the device memory of the matrices that patches put beside the layers, in bytes."""
    parts = [change.low_rank() for scaled in _by_parameter(patches).values() for _, change in _beside(scaled)]
    return itemsize * sum(up.numel() + down.numel() for up, down, _ in parts)


def _by_parameter(patches: Iterable[Patch]) -> dict[str, list[tuple[float, Change]]]:
    wanted: dict[str, list[tuple[float, Change]]] = {}
    for patch in patches:
        wanted.setdefault(patch.parameter, []).append((patch.scale, patch.change))
    return wanted


def _beside(changes: Scaled) -> Scaled:
    """Return the changes when all of them go beside the layer; else none, so that their order on the weight stays."""
    return changes if all(change.low_rank() is not None for _, change in changes) else []
