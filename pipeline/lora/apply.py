"""LoRA files -> two experts with their changes, and a report of what fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..checkpoint.expert import Expert
from ..host import Host, Patch, ReadLora, Targets
from ..image_to_video import Wan22Model
from ..request import RequestError
from .fit import fit
from .match import LoraFile, experts_of
from .original_names import original_name

AnyExpert = TypeVar("AnyExpert")
Add = Callable[[AnyExpert, Mapping[str, Any], LoraFile, int], AnyExpert]
"""(expert, changes by parameter, the file they are of, schedule.HIGH or LOW) -> the expert with the changes, a new one.

The file's scale is not in the changes yet."""


def add_loras(experts: Sequence[AnyExpert], files: Sequence[LoraFile], targets_of: Callable[[AnyExpert], Targets],
              add: Add, read_lora: ReadLora) -> tuple[list[AnyExpert], list[str]]:
    """The experts, indexed by schedule.HIGH and LOW, with every LoRA, and what `fit` says of each for each expert.

    Raises as `fit` does.
    """
    experts, report = list(experts), []
    for file in files:
        for index in experts_of(file.lora):
            changes, said = fit(file, index, targets_of(experts[index]), read_lora)
            report.append(said)
            if file.lora.scale != 0.0:  # then nothing at all, whatever the file holds
                experts[index] = add(experts[index], changes, file, index)
    return experts, report


def _targets(expert: Expert) -> Targets:
    return {original_name(name).removesuffix(".weight"): (name, tuple(value.shape))
            for name, value in expert.model.named_parameters()}


def _with_patches(expert: Expert, changes: Mapping[str, Any], file: LoraFile, index: int) -> Expert:
    patches = tuple(Patch(name, file.lora.scale, change) for name, change in changes.items())
    return replace(expert, patches=(*expert.patches, *patches))


def apply_loras(model: Wan22Model, files: Sequence[LoraFile], host: Host) -> tuple[Wan22Model, list[str]]:
    """The model with every LoRA in force, and a line on each for each expert it went to.

    Nothing is merged or copied: the experts are the same, with patches that their residents work out for each use.
    Raises RequestError or CheckpointError for a LoRA of another model and for a damaged file.
    """
    if files and host.read_lora is None:
        raise RequestError("LoRAs need ComfyUI: this host cannot apply them.")
    experts, report = add_loras(model.experts, files, _targets, _with_patches, host.read_lora)
    return Wan22Model(*experts), report
