"""LoRA files -> the two experts with their patches, and a report of what fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.expert import Expert
from ..checkpoint.safetensors_file import read_tensors
from ..host import Host, Patch, ReadLora
from ..image_to_video import Wan22Model
from ..request import RequestError
from ..sampling.schedule import EXPERT_NAMES, HIGH, LOW
from .delta import as_matrix, delta_shape
from .key_map import lora_names
from .lora import BOTH, Lora
from .lora import HIGH as HIGH_EXPERT
from .lora import LOW as LOW_EXPERT

if TYPE_CHECKING:
    import torch

LOW_PREFIX = "transformer_2."
HARMLESS = {
    "image projection of Wan 2.1, which 2.2 does without": ("k_img", "v_img", "norm_k_img", "img_emb"),
    "for the text encoder, which stays as it is": ("lora_te", "text_encoder.", "text_encoders."),
}
"""Why some keys find no place though the LoRA is the right one -> what their names hold."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA whose file is here; `lora.expert` is settled: both, high or low."""

    lora: Lora
    path: Path
    name: str
    """As it is shown to the user."""


@dataclass(frozen=True)
class Match:
    """How much of a LoRA file found its place on one expert, in keys."""

    used: int
    harmless: dict[str, int]
    """Reason -> keys."""
    unused: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the keys that should fit, 0..1."""
        total = self.used + len(self.unused)
        return self.used / total if total else 0.0


def _part_for(tensors: dict[str, torch.Tensor], index: int) -> dict[str, torch.Tensor]:
    """What a file holds for an expert: with diffusers' two prefixes in one file, each has its own half."""
    low = {name: tensor for name, tensor in tensors.items() if name.startswith(LOW_PREFIX)}
    if not low:
        return tensors
    return low if index == LOW else {name: tensor for name, tensor in tensors.items() if name not in low}


def _match(names: list[str], used: set[str]) -> Match:
    unused, harmless = [], {}
    for name in names:
        if name in used:
            continue
        reason = next((r for r, parts in HARMLESS.items() if any(part in name for part in parts)), None)
        if reason is None:
            unused.append(name)
        else:
            harmless[reason] = harmless.get(reason, 0) + 1
    return Match(len(names) - len(unused) - sum(harmless.values()), harmless, tuple(unused))


def _module_of(key: str, names: dict[str, str]) -> str | None:
    """The module that a key of a LoRA file speaks of: the longest beginning, dot by dot, that is one's name."""
    module = key
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module or None


def _check_shapes(file: LoraFile, tensors: dict[str, torch.Tensor], names: dict[str, str], expert: Expert) -> None:
    """Raise RequestError for a change of another shape than its weight: ComfyUI would only log it and go on."""
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, tensor in tensors.items():
        module = _module_of(key, names)
        if module is not None:
            parts.setdefault(module, {})[key.removeprefix(f"{module}.")] = tuple(tensor.shape)
    for module, shapes in parts.items():
        found, wanted = delta_shape(shapes), as_matrix(tuple(expert.model.get_parameter(names[module]).shape))
        if found is not None and found != wanted:
            raise RequestError(f"{file.name} does not fit {expert.name}: its {module} changes a matrix of "
                               f"{found[0]} x {found[1]}, the expert's is {wanted[0]} x {wanted[1]}. It was made for "
                               "a model of another size; choose a LoRA for this one.")


def _patched(expert: Expert, index: int, file: LoraFile, tensors: dict[str, torch.Tensor],
             read_lora: ReadLora) -> tuple[Expert, str]:
    """The expert with the LoRA's patches added, and a sentence on how much of it fitted."""
    which = EXPERT_NAMES[index]
    parameters = dict(expert.model.named_parameters())
    names, part = lora_names(parameters), _part_for(tensors, index)
    _check_shapes(file, part, names, expert)
    changes, used = read_lora(part, names)
    match = _match(list(part), used)
    said = f"{file.name}, scale {file.lora.scale:g}, {which} expert: {match.used} of {len(part)} keys"
    for reason, count in match.harmless.items():
        said += f"; {count} {reason}"
    if match.unused:
        said += f"; {len(match.unused)} not known, such as {match.unused[0]}"
    if match.share < file.lora.min_match:
        raise RequestError(f"{said}. That is {match.share:.0%}, and min_match asks for {file.lora.min_match:.0%}. It "
                           "is not made for this model, or not for this expert; choose another LoRA or expert, or "
                           "lower min_match to use what fits.")
    patches = tuple(Patch(name, file.lora.scale, change) for name, change in changes.items() if name in parameters)
    return replace(expert, patches=(*expert.patches, *patches)), f"{said}."


def apply_loras(model: Wan22Model, files: Sequence[LoraFile], host: Host) -> tuple[Wan22Model, list[str]]:
    """The model with every LoRA in force, and a line on each for each expert it went to.

    Nothing is merged or copied: the experts are the same, with patches that their residents work out for each use.
    Raises RequestError for a LoRA of another model, CheckpointError for a damaged file.
    """
    if files and host.read_lora is None:
        raise RequestError("LoRAs need ComfyUI: this host cannot apply them.")
    experts, report = list(model.experts), []
    for file in files:
        tensors = read_tensors(file.path)
        for index, own in ((HIGH, HIGH_EXPERT), (LOW, LOW_EXPERT)):
            if file.lora.expert in (BOTH, own):
                experts[index], line = _patched(experts[index], index, file, tensors, host.read_lora)
                report.append(line)
    return Wan22Model(*experts), report
