"""Apply a list of LoRAs to both experts: find or fetch their files, match them, and add their changes as patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..models.expert import Expert
from ..models.load import Wan22Model
from ..models.patches import Patch
from ..request import EXPERTS, Lora
from .changes import Targets
from .match import LoraFile, experts_of, read_changes
from .names import IN_BLOCKS, OUTSIDE
from .probe import LoraFacts, check_fits
from .source import Check, Fetch, Find, Stop, open_lora

_OUTSIDE = {theirs: ours for ours, theirs in OUTSIDE.items()}
_IN_BLOCKS = {theirs: ours for ours, theirs in IN_BLOCKS.items()}


def original_name(parameter: str) -> str:
    """Return the name in wan/modules/model.py of a parameter of diffusers' WanTransformer3DModel.

    Raises KeyError for a parameter that no Wan model has.
    """
    parts = parameter.split(".")
    block = parts[0] == "blocks"
    stem, table = (".".join(parts[2:]), _IN_BLOCKS) if block else (parameter, _OUTSIDE)
    module, _, kind = stem.rpartition(".") if stem not in table else (stem, "", "")
    found = f"{table[module]}.{kind}".rstrip(".")
    return f"blocks.{parts[1]}.{found}" if block else found


AnyExpert = TypeVar("AnyExpert")
Add = Callable[[AnyExpert, Mapping[str, Any], LoraFile, str], AnyExpert]
"""(expert, changes by parameter, their file, HIGH or LOW) -> a new expert with the changes, still to be scaled."""


def add_loras(experts: Mapping[str, AnyExpert], files: Sequence[LoraFile], targets_of: Callable[[AnyExpert], Targets],
              add: Add) -> tuple[dict[str, AnyExpert], list[str]]:
    """Add every LoRA to the experts, by HIGH and LOW; return them, and a sentence on each LoRA for each expert.

    Raises as `read_changes` does.
    """
    experts, report = dict(experts), []
    for file in files:
        for expert in experts_of(file.lora):
            changes, sentence = read_changes(file, expert, targets_of(experts[expert]))
            report.append(sentence)
            if file.lora.scale != 0.0:  # at 0 nothing is added
                experts[expert] = add(experts[expert], changes, file, expert)
    return experts, report


def _targets(expert: Expert) -> Targets:
    shapes = {name: tuple(value.shape) for name, value in expert.model.named_parameters()}
    shapes |= {f"{name}.weight": (layer.out_features, layer.in_features)  # of quantised layers of the plain host too
               for name, layer in expert.model.named_modules() if hasattr(layer, "beside")}
    return {original_name(name).removesuffix(".weight"): (name, shape) for name, shape in shapes.items()}


def _with_patches(expert: Expert, changes: Mapping[str, Any], file: LoraFile, which: str) -> Expert:
    patches = tuple(Patch(name, file.lora.scale, change, file.lora) for name, change in changes.items())
    return replace(expert, patches=(*expert.patches, *patches))


def apply_loras(model: Wan22Model, files: Sequence[LoraFile]) -> tuple[Wan22Model, list[str]]:
    """Return the model with every LoRA as patches, and a line on each LoRA for each expert that it is for.

    Nothing is merged: the host applies the patches at each use. Raises RequestError or CheckpointError for a
    LoRA of another model and for a damaged file.
    """
    experts, report = add_loras(model.experts, files, _targets, _with_patches)
    return Wan22Model(*(experts[name] for name in EXPERTS)), report


def open_loras(loras: Sequence[Lora], find: Find, fetch: Fetch, stop: Stop, check: Check) -> list[LoraFile]:
    """Open every LoRA's file, local ones first, so that their errors come before anything is fetched."""
    opened: dict[Lora, LoraFile] = {}
    for lora in sorted(loras, key=lambda lora: find(lora.source) is None):
        if lora not in opened:
            opened[lora] = open_lora(lora, find, fetch, stop, check)
    return [opened[lora] for lora in loras]


def use_loras(model: Wan22Model, loras: Sequence[Lora], find: Find, fetch: Fetch, stop: Stop,
              ) -> tuple[Wan22Model, list[str]]:
    """Open the LoRAs and apply them; return the model with its patches, and a line on each LoRA for each expert.

    Raises as `open_lora` and `apply_loras` do.
    """
    config = model.high.model.config

    def check(facts: LoraFacts) -> None:
        check_fits(facts, config.num_attention_heads * config.attention_head_dim, config.num_layers)

    return apply_loras(model, open_loras(loras, find, fetch, stop, check))
