"""Read a LoRA's tensors as changes of weights, and add them by the host's arithmetic, an `Algebra`.

A change is an object of the host's. ComfyUI's are a WeightAdapterBase, ("diff", (tensor,)) and ("set", (tensor,)), and
its comfy/lora.py adds them. Added here: an error for every change that is not applied, and DoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ..models.host import Targets

Tensors = dict[str, torch.Tensor]
MAGNITUDE = ".dora_scale"


@dataclass(frozen=True)
class Algebra:
    """The host's functions that read a LoRA's tensors and add its changes."""

    load: Callable[[Tensors, dict[str, str]], dict[str, Any]]
    """(tensors, module -> parameter) -> parameter -> change; ComfyUI's load_lora."""
    add: Callable[[list[tuple[Any, ...]], torch.Tensor, str], torch.Tensor]
    """(patches, weight, name) -> the weight with the patches added, in place, in its own dtype; ComfyUI's
    calculate_weight. A patch is (scale, change, 1.0, None, function applied to each summand)."""
    dora: Callable[[str, Any, torch.Tensor], Any]
    """(name of the magnitudes' tensor, change, magnitudes) -> a change that `add` adds as `to_magnitude` says."""

    def changed(self, weight: torch.Tensor, changes: list[tuple[float, Any]], name: str) -> torch.Tensor:
        """Add changes, each (scale, change), to a weight in place, in its own dtype, and return it.

        Raises torch.OutOfMemoryError when one was not added: ComfyUI's adapters log errors and skip the change, and
        after `_check_shape` the only error left at run time is a lack of memory.
        """
        added: list[bool] = []

        def witness(delta: torch.Tensor) -> torch.Tensor:
            added.append(True)
            return delta

        weight = self.add([(scale, change, 1.0, None, witness) for scale, change in changes], weight, name)
        if len(added) < sum(not _replaces(change) for _, change in changes):
            raise torch.OutOfMemoryError(f"A LoRA's change of {name} could not be computed; ComfyUI's log says why.")
        return weight

    def read(self, tensors: Tensors, targets: Targets) -> tuple[dict[str, Any], set[str]]:
        """Read a LoRA, as models.host.ReadLora: LoRA, LoHa, LoKr, DoRA, differences and what else the host reads."""
        plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(MAGNITUDE)}
        modules = {module: parameter for module, (parameter, _) in targets.items() if not module.endswith(".bias")}
        try:
            found = self.load(plain, modules)
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"its tensors do not fit together ({error})") from error
        shapes = dict(targets.values())
        changes = {name: change for name, change in found.items() if name in shapes}
        used = _used(plain, changes.values()) - _used(plain, (found[name] for name in found.keys() - changes.keys()))
        for name in tensors.keys() - plain.keys():
            parameter = modules.get(name.removesuffix(MAGNITUDE))
            if parameter in changes:
                changes[parameter] = self.dora(name, changes[parameter], tensors[name])
                used.add(name)
        for name, change in changes.items():
            self._check_shape(change, shapes[name], name)
        return changes, used

    def _check_shape(self, change: Any, shape: tuple[int, ...], name: str) -> None:
        """Raise ValueError for a change that does not fit a parameter of this shape, tried on the meta device."""
        try:
            self.changed(torch.empty(shape, device="meta"), [(1.0, change)], name)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            raise ValueError(f"its change of {name} does not fit a weight of {' x '.join(map(str, shape))}") from error


def _replaces(change: Any) -> bool:
    return isinstance(change, tuple) and change[0] == "set"


def _used(tensors: Tensors, changes: Iterable[Any]) -> set[str]:
    """Return the names of the tensors that the changes hold."""
    named: set[str] = set()
    held: set[int] = set()
    for change in changes:
        named |= getattr(change, "loaded_keys", set())
        held |= {id(value) for value in change[1]} if isinstance(change, tuple) else set()
    return named | {name for name, tensor in tensors.items() if id(tensor) in held}


class Change:
    """A function that adds LoRAs to a copy of a weight at each use; the weight stays as it is stored."""

    def __init__(self, algebra: Algebra, name: str, changes: list[tuple[float, Any]]) -> None:
        self.algebra, self.name, self.changes = algebra, name, changes

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        # The sum is in place, and the host may pass the stored weight itself.
        return self.algebra.changed(weight.clone(), self.changes, self.name)


class PatchedParameters:
    """The parameters of a module that patches replace while they are in force."""

    def __init__(self, module: torch.nn.Module, algebra: Algebra) -> None:
        self._module, self._algebra = module, algebra
        self._originals: dict[str, torch.Tensor] = {}

    def put(self, wanted: dict[str, list[tuple[float, Any]]]) -> None:
        """Restore the originals, then apply these changes: name of a parameter -> (scale, change) each."""
        for name, original in self._originals.items():
            parameter = self._module.get_parameter(name)
            parameter.data = original.to(parameter.device)
        self._originals = {name: self._module.get_parameter(name).data for name in wanted}
        for name, changes in wanted.items():
            original = self._originals[name]
            changed = self._algebra.changed(original.to(torch.float32, copy=True), changes, name)
            self._module.get_parameter(name).data = changed.to(original.dtype)


def to_magnitude(weight: torch.Tensor, summed: torch.Tensor, magnitude: torch.Tensor, scale: float) -> torch.Tensor:
    """DoRA: the weight W brought by `scale` towards m (W + d) / |W + d| (arXiv:2402.09353, equation 5).

    `summed` is W + d. Magnitudes of shape (1, in) are those of columns, (out, 1) and (out,) those of rows.
    """
    summed = summed.flatten(1)
    columns = magnitude.ndim > 1 and magnitude.shape[0] == 1
    length = summed.norm(dim=0 if columns else 1, keepdim=True).clamp_min(torch.finfo(summed.dtype).eps)
    changed = summed * (magnitude.to(summed).reshape(length.shape) / length)
    return weight.lerp(changed.view_as(weight), scale)
