"""How far a LoRA file fits an expert: what of it found its place, what did not and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.errors import CheckpointError
from ..checkpoint.safetensors_file import read_tensors
from ..host import ReadLora, Targets
from ..request import RequestError
from ..sampling.schedule import EXPERT_NAMES
from .adapters import adapter_of, outline
from .lora import HIGH, LOW, Lora
from .names import IMAGE_PROJECTION, LoraKey, split
from .probe import LoraFacts, check_fits

if TYPE_CHECKING:
    import torch

NO_PLACE = {
    "image projection of Wan 2.1, which 2.2 does without": IMAGE_PROJECTION,
    "control blocks of VACE, which these experts do without": re.compile(r"^vace_"),
}
"""Why modules of a LoRA that is the right one otherwise find no place -> their names."""
INPUT_LAYER = "patch_embedding"
OTHER_INPUT = "for a patch embedding of another number of channels, such as that of text to video"
FOR_EXPERT = (HIGH, LOW)
"""Indexed by schedule.HIGH and schedule.LOW."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA whose file is here. `lora.expert` is settled, for the reason `why` if that was left to the file."""

    lora: Lora
    path: Path
    facts: LoraFacts
    why: str = ""

    @property
    def name(self) -> str:
        """As it is shown to the user; that of `path` may be a hash."""
        return self.facts.name


@dataclass(frozen=True)
class Match:
    """How much of a LoRA file found its place on one expert, in tensors."""

    used: int
    no_place: Mapping[str, int]
    """Why -> how many: those that no Wan 2.2 I2V model has a place for."""
    unused: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.used + sum(self.no_place.values()) + len(self.unused)

    @property
    def share(self) -> float:
        """Of the tensors that should fit, 0..1."""
        return self.used / max(1, self.used + len(self.unused))


def _modules(keys: Mapping[str, LoraKey], tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module -> the shapes of its parts."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, key in keys.items():
        found.setdefault(key.module, {})[key.part] = tuple(tensors[name].shape)
    return found


def _misfits(keys: Mapping[str, LoraKey], tensors: Mapping[str, torch.Tensor], targets: Targets,
             ) -> dict[str, tuple[tuple[int | None, int | None], tuple[int, int]]]:
    """Modules whose change has another shape than the weight, which ComfyUI would only log: module -> both shapes."""
    found = {}
    for module, parts in _modules(keys, tensors).items():
        kind = adapter_of(parts) if module in targets else None
        if kind is not None:
            rows, *columns = targets[module][1]
            sizes, wanted = outline(kind, parts).sizes, (rows, prod(columns))
            if any(size not in (None, there) for size, there in zip(sizes, wanted, strict=True)):
                found[module] = (sizes, wanted)
    return found


def _match(keys: Mapping[str, LoraKey], others: Sequence[str], used: set[str]) -> Match:
    no_place: Counter[str] = Counter()
    left = []
    for name, key in keys.items():
        if f"{key.module}.{key.part}" not in used:
            reason = next((why for why, names in NO_PLACE.items() if names.search(key.module)), None)
            no_place.update([reason] if reason else [])
            left += [] if reason else [name]
    return Match(len(keys) - len(left) - no_place.total(), no_place, (*left, *others))


def fit(file: LoraFile, index: int, targets: Targets, read_lora: ReadLora) -> tuple[dict[str, Any], str]:
    """The changes that a LoRA makes to an expert (parameter -> the host's own), and a sentence on what fitted.

    `index` is schedule.HIGH or LOW. Raises RequestError or CheckpointError when it does not fit.
    """
    blocks = {module.split(".")[1] for module in targets if module.startswith("blocks.")}
    check_fits(file.facts, targets["blocks.0.self_attn.q"][1][0], len(blocks))
    tensors = read_tensors(file.path)
    named = split(tensors)
    keys = {name: key for name, key in named.items() if key.expert in (None, FOR_EXPERT[index])}
    misfits = _misfits(keys, tensors, targets)
    # A LoRA for text to video changes the input layer too, and is of use without that.
    other_input = {name for name, key in keys.items() if key.module == INPUT_LAYER and INPUT_LAYER in misfits
                   and key.part != "diff_b"}
    keys = {name: key for name, key in keys.items() if name not in other_input}
    for module, (sizes, wanted) in misfits.items():
        if module != INPUT_LAYER:
            raise RequestError(f"{file.name} does not fit: its {module} changes a matrix of {sizes[0]} x {sizes[1]}, "
                               f"the expert's is {wanted[0]} x {wanted[1]}. It was made for a model of another size; "
                               "choose a LoRA for this one.")
    try:
        changes, used = read_lora({f"{key.module}.{key.part}": tensors[name] for name, key in keys.items()}, targets)
    except ValueError as error:
        raise CheckpointError(f"{file.name} is damaged: {error}. Fetch it again, or choose another.") from error
    match = _match(keys, [name for name in tensors if name not in named], used)
    if other_input:
        match = replace(match, no_place={**match.no_place, OTHER_INPUT: len(other_input)})
    said = f"{file.name}, scale {file.lora.scale:g}, {EXPERT_NAMES[index]} expert"
    said += f" ({file.why})" if file.why else ""
    said += f": {match.used} of {match.total} keys"
    for reason, count in match.no_place.items():
        said += f"; {count} are {reason}"
    said += f"; {len(match.unused)} are not known, such as {match.unused[0]}" if match.unused else ""
    if match.share < file.lora.min_match:
        raise RequestError(f"{said}. That is {match.share:.0%}, and min_match asks for {file.lora.min_match:.0%}. It "
                           "is not made for this model, or not for this expert; choose another LoRA or expert, or "
                           "lower min_match to use what fits.")
    return changes, f"{said}."
