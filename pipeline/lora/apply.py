"""LoRA files -> the two experts with their patches, and a report of what fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.expert import Expert
from ..checkpoint.safetensors_file import read_tensors
from ..host import Host, Patch, ReadLora
from ..image_to_video import Wan22Model
from ..request import RequestError
from ..sampling.schedule import EXPERT_NAMES
from .adapters import adapter_of, outline
from .lora import BOTH, HIGH, LOW, Lora
from .names import IMAGE_PROJECTION, LoraKey, split
from .original_names import original_name
from .probe import LoraFacts, check_fits

if TYPE_CHECKING:
    import torch

NO_PLACE = "image projection of Wan 2.1, which 2.2 does without"
FOR_EXPERT = (HIGH, LOW)
"""Indexed by schedule.HIGH and schedule.LOW."""
Targets = Mapping[str, tuple[str, tuple[int, ...]]]
"""Original name of a module -> the parameter of it that a LoRA changes, and its shape."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA whose file is here. `lora.expert` is settled, for the reason `why` if that was left to the file."""

    lora: Lora
    path: Path
    name: str
    """As it is shown to the user."""
    facts: LoraFacts
    why: str = ""


@dataclass(frozen=True)
class Match:
    """How much of a LoRA file found its place on one expert, in tensors."""

    used: int
    no_place: int
    """Of the image projection of Wan 2.1, which are missing from every 2.2 model."""
    unused: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.used + self.no_place + len(self.unused)

    @property
    def share(self) -> float:
        """Of the tensors that should fit, 0..1."""
        return self.used / max(1, self.total - self.no_place)


def experts_of(lora: Lora) -> list[int]:
    """The experts that a settled LoRA goes to: schedule.HIGH, LOW or both."""
    return [index for index, own in enumerate(FOR_EXPERT) if lora.expert in (BOTH, own)]


def _check_shapes(name: str, keys: Mapping[str, LoraKey], tensors: Mapping[str, torch.Tensor],
                  targets: Targets) -> None:
    """Raise RequestError for a change of another shape than its weight: ComfyUI would only log it and go on."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor, key in keys.items():
        if key.module in targets:
            modules.setdefault(key.module, {})[key.part] = tuple(tensors[tensor].shape)
    for module, parts in modules.items():
        kind, (rows, *columns) = adapter_of(parts), targets[module][1]
        sizes, wanted = (None, None) if kind is None else outline(kind, parts).sizes, (rows, prod(columns))
        if any(size not in (None, there) for size, there in zip(sizes, wanted, strict=True)):
            raise RequestError(f"{name} does not fit: its {module} changes a matrix of {sizes[0]} x {sizes[1]}, the "
                               f"expert's is {wanted[0]} x {wanted[1]}. It was made for a model of another size; "
                               "choose a LoRA for this one.")


def _match(keys: Mapping[str, LoraKey], others: Sequence[str], used: set[str]) -> Match:
    unused = [name for name, key in keys.items() if f"{key.module}.{key.part}" not in used]
    no_place = {name for name in unused if IMAGE_PROJECTION.search(keys[name].module)}
    return Match(len(keys) - len(unused), len(no_place), (*(n for n in unused if n not in no_place), *others))


def fit(file: LoraFile, index: int, targets: Targets, read_lora: ReadLora) -> tuple[dict[str, Any], str]:
    """The changes that a LoRA makes to an expert (parameter -> the host's own), and a sentence on what fitted.

    `index` is schedule.HIGH or LOW. Raises RequestError or CheckpointError when it does not fit.
    """
    blocks = {module.split(".")[1] for module in targets if module.startswith("blocks.")}
    check_fits(file.facts, targets["blocks.0.self_attn.q"][1][0], len(blocks))
    tensors = read_tensors(file.path)
    named = split(tensors)
    keys = {name: key for name, key in named.items() if key.expert in (None, FOR_EXPERT[index])}
    _check_shapes(file.name, keys, tensors, targets)
    changes, used = read_lora({f"{key.module}.{key.part}": tensors[name] for name, key in keys.items()},
                              {module: parameter for module, (parameter, _) in targets.items()})
    match = _match(keys, [name for name in tensors if name not in named], used)
    said = f"{file.name}, scale {file.lora.scale:g}, {EXPERT_NAMES[index]} expert"
    said += f" ({file.why})" if file.why else ""
    said += f": {match.used} of {match.total} keys"
    said += f"; {match.no_place} are {NO_PLACE}" if match.no_place else ""
    said += f"; {len(match.unused)} are not known, such as {match.unused[0]}" if match.unused else ""
    if match.share < file.lora.min_match:
        raise RequestError(f"{said}. That is {match.share:.0%}, and min_match asks for {file.lora.min_match:.0%}. It "
                           "is not made for this model, or not for this expert; choose another LoRA or expert, or "
                           "lower min_match to use what fits.")
    return changes, f"{said}."


def _patched(expert: Expert, index: int, file: LoraFile, read_lora: ReadLora) -> tuple[Expert, str]:
    """The expert with the LoRA's patches added, and what `fit` says."""
    parameters = {name: tuple(value.shape) for name, value in expert.model.named_parameters()}
    targets = {original_name(name).removesuffix(".weight"): (name, shape) for name, shape in parameters.items()
               if not name.endswith(".bias")}
    changes, said = fit(file, index, targets, read_lora)
    patches = tuple(Patch(name, file.lora.scale, change) for name, change in changes.items() if name in parameters)
    return replace(expert, patches=(*expert.patches, *patches)), said


def apply_loras(model: Wan22Model, files: Sequence[LoraFile], host: Host) -> tuple[Wan22Model, list[str]]:
    """The model with every LoRA in force, and a line on each for each expert it went to.

    Nothing is merged or copied: the experts are the same, with patches that their residents work out for each use.
    Raises RequestError or CheckpointError for a LoRA of another model and for a damaged file.
    """
    if files and host.read_lora is None:
        raise RequestError("LoRAs need ComfyUI: this host cannot apply them.")
    experts, report = list(model.experts), []
    for file in files:
        for index in experts_of(file.lora):
            experts[index], line = _patched(experts[index], index, file, host.read_lora)
            report.append(line)
    return Wan22Model(*experts), report
