"""Read a LoRA's tensors as changes of an expert's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .adapters import OF_BIAS, UP_BIAS, adapter_of, patch_shape, used_parts
from .arithmetic import ModulePatch, Parts

Targets = Mapping[str, tuple[str, tuple[int, ...]]]
"""Original name of a module, or of a bias with `.bias` -> name and shape of the parameter that a LoRA changes."""

NO_WEIGHT = ("alpha", "reshape_weight", *OF_BIAS)
"""Parts that are not in the patch of a weight."""


def read_lora(modules: Mapping[str, Parts], targets: Targets, factors: Mapping[str, float],
              ) -> tuple[dict[str, ModulePatch], set[str]]:
    """Return the changes by parameter, and the names of the tensors used, each `module.part`.

    modules: a LoRA's tensors by module and part, with ComfyUI's names of parts, such as `lora_up.weight`. factors:
    alpha / rank of modules without an alpha tensor. Every part is used or left out of the names returned; nothing is
    dropped in silence. Raises ValueError, with a clause, for a change that does not fit its parameter.
    """
    changes: dict[str, ModulePatch] = {}
    used: set[str] = set()
    for module, tensors in modules.items():
        shapes = {part: tuple(tensor.shape) for part, tensor in tensors.items()}
        kind = adapter_of(shapes) if module in targets else None
        if kind is None:
            continue
        bias = targets.get(f"{module}.bias")
        taken = used_parts(shapes, bias is not None)
        used |= {f"{module}.{part}" for part in taken}
        try:
            rank = patch_shape(kind, shapes).rank
        except ValueError as error:
            raise ValueError(f"its {module} {error}") from error
        alpha = tensors["alpha"].item() if "alpha" in tensors else None
        factor = factors.get(module, 1.0) if alpha is None else alpha / rank if rank else 1.0
        name, shape = targets[module]
        _check_reshape(tensors, module, shape)
        of_weight = {part: tensors[part] for part in tensors if part in taken and part not in NO_WEIGHT}
        if of_weight:
            changes[name] = _tried(ModulePatch(of_weight, factor, max(alpha or 0.0, 0.0) * shape[0]), name, shape)
        of_bias = [tensors[part].float() * (factor if part == UP_BIAS else 1.0) for part in OF_BIAS if part in taken]
        if of_bias and bias is not None:
            changes[bias[0]] = _tried(ModulePatch({"diff": sum(of_bias)}), *bias)
    return changes, used


def _check_reshape(tensors: Parts, module: str, shape: Sequence[int]) -> None:
    wanted = tensors["reshape_weight"].tolist() if "reshape_weight" in tensors else list(shape)
    if wanted != list(shape):
        raise ValueError(f"its {module} is for a weight of {' x '.join(map(str, wanted))}, not "
                         f"{' x '.join(map(str, shape))}")


def _tried(change: ModulePatch, name: str, shape: Sequence[int]) -> ModulePatch:
    """Return the change. Raises ValueError when it does not go with a parameter of this shape; costs no arithmetic."""
    try:
        change.add_to(torch.empty(shape, device="meta"), 1.0)
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"its change of {name} does not fit a weight of {' x '.join(map(str, shape))}") from error
    return change
