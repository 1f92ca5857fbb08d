"""Match a LoRA file with an expert: which of its keys fit, which do not and why, and the changes that they make."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.errors import CheckpointError, quoted
from ..checkpoint.safetensors_file import read_tensors
from ..request import BOTH, EXPERTS, Lora, RequestError
from .adapters import OF_BIAS, Shape, adapter_of, patch_shape
from .alpha import missing_factors
from .names import IMAGE_PROJECTION, LoraKey, split
from .probe import LoraFacts, check_fits

if TYPE_CHECKING:
    import torch

    from .changes import Targets

NO_PLACE = {
    "image projection of Wan 2.1, which 2.2 does without": IMAGE_PROJECTION,
    "control blocks of VACE, which these experts do without": re.compile(r"^vace_"),
}
"""Reason why modules of a LoRA that fits otherwise are not used -> pattern of their names."""
INPUT_LAYER = "patch_embedding"
OTHER_INPUT = "for a patch embedding of another number of channels, such as that of text to video"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA with its file; `lora.expert` is chosen, for the reason `why` if it was AUTO."""

    lora: Lora
    path: Path
    facts: LoraFacts
    why: str = ""

    @property
    def name(self) -> str:
        """The name for messages; the name of `path` may be a hash."""
        return self.facts.name


@dataclass(frozen=True)
class Match:
    """The number of tensors of a LoRA file that fit one expert."""

    used: int
    no_place: Mapping[str, int]
    """Reason -> number of tensors that no Wan 2.2 I2V model has a place for."""
    unused: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.used + sum(self.no_place.values()) + len(self.unused)

    @property
    def share(self) -> float:
        """The share of the tensors that should fit which do, 0..1."""
        return self.used / max(1, self.used + len(self.unused))


@dataclass(frozen=True)
class ExpertKeys:
    """A LoRA's tensors for one expert.

    `keys` can be applied. `other_input` are for an input layer of other channels. `others` are no part of a LoRA.
    """

    keys: Mapping[str, LoraKey]
    other_input: frozenset[str]
    others: tuple[str, ...]

    def match(self, used: set[str]) -> Match:
        """Count the keys by whether they are in `used`, the applied ones, each `module.part`."""
        no_place: Counter[str] = Counter()
        left = []
        for name, key in self.keys.items():
            if f"{key.module}.{key.part}" not in used:
                reason = next((why for why, names in NO_PLACE.items() if names.search(key.module)), None)
                no_place.update([reason] if reason else [])
                left += [] if reason else [name]
        found = len(self.keys) - len(left) - no_place.total()
        no_place.update({OTHER_INPUT: len(self.other_input)} if self.other_input else {})
        return Match(found, no_place, (*left, *self.others))


def experts_of(lora: Lora) -> list[str]:
    """Return the experts that a settled LoRA goes to: HIGH, LOW or both."""
    return [expert for expert in EXPERTS if lora.expert in (BOTH, expert)]


def parts_of(keys: Mapping[str, LoraKey], shapes: Mapping[str, Shape]) -> dict[str, dict[str, Shape]]:
    """Return {module: {part: shape}}."""
    found: dict[str, dict[str, Shape]] = {}
    for name, key in keys.items():
        found.setdefault(key.module, {})[key.part] = shapes[name]
    return found


def _misfits(parts: Mapping[str, Mapping[str, Shape]], targets: Mapping[str, Shape],
             ) -> dict[str, tuple[tuple[int | None, int | None], tuple[int, int]]]:
    """Return {module: (sizes of its change, sizes of the weight)} where these differ; ComfyUI would only log it."""
    found = {}
    for module, shapes in parts.items():
        kind = adapter_of(shapes) if module in targets else None
        if kind is not None:
            rows, *columns = targets[module]
            sizes, wanted = patch_shape(kind, shapes).sizes, (rows, prod(columns))
            if any(size not in (None, there) for size, there in zip(sizes, wanted, strict=True)):
                found[module] = (sizes, wanted)
    return found


def keys_for_expert(name: str, named: Mapping[str, LoraKey], shapes: Mapping[str, Shape], expert: str,
                    targets: Mapping[str, Shape]) -> ExpertKeys:
    """Return the tensors of a LoRA for an expert.

    name: what messages call the file. named: what `names.split` made of its tensors. expert: HIGH or LOW.
    targets: original name of a module, of a bias with `.bias` -> the shape of its parameter. Raises RequestError for a
    LoRA of another size.
    """
    keys = {tensor: key for tensor, key in named.items() if key.expert in (None, expert)}
    misfits = _misfits(parts_of(keys, shapes), targets)
    # A LoRA for text to video changes the input layer too; the rest of it can be used.
    other_input = frozenset(tensor for tensor, key in keys.items() if key.module == INPUT_LAYER
                            and INPUT_LAYER in misfits and key.part not in OF_BIAS)
    for module, (sizes, wanted) in misfits.items():
        if module != INPUT_LAYER:
            raise RequestError(f"{name} does not fit: its {module} changes a matrix of {sizes[0]} x {sizes[1]}, "
                               f"the expert's is {wanted[0]} x {wanted[1]}. It was made for a model of another size; "
                               "choose a LoRA for this one.")
    return ExpertKeys({tensor: key for tensor, key in keys.items() if tensor not in other_input}, other_input,
                      tuple(tensor for tensor in shapes if tensor not in named))


def describe_match(file: LoraFile, expert: str, match: Match) -> str:
    """Return a sentence on what fits, without its full stop."""
    text = f"{file.name}, scale {file.lora.scale:g}, {expert}-noise expert"
    text += f" ({file.why})" if file.why else ""
    text += f": {match.used} of {match.total} keys"
    for reason, count in match.no_place.items():
        text += f"; {count} are {reason}"
    return text + (f"; {len(match.unused)} are not known, such as {match.unused[0]}" if match.unused else "")


def check_match(file: LoraFile, expert: str, match: Match) -> None:
    """Raise RequestError when less fits than the LoRA's min_match."""
    if match.share < file.lora.min_match:
        raise RequestError(f"{describe_match(file, expert, match)}. That is {match.share:.0%}, and min_match asks for "
                           f"{file.lora.min_match:.0%}. It is not made for this model, or not for this expert; choose "
                           "another LoRA or expert, or lower min_match to use what fits.")


def read_changes(file: LoraFile, expert: str, targets: Targets) -> tuple[dict[str, Any], str]:
    """Return a LoRA's changes to an expert (parameter -> models.patches.Change), and a sentence on what fits.

    `expert` is HIGH or LOW. Raises RequestError or CheckpointError when it does not fit.
    """
    from .changes import read_lora  # torch

    blocks = {module.split(".")[1] for module in targets if module.startswith("blocks.")}
    check_fits(file.facts, targets["blocks.0.self_attn.q"][1][0], len(blocks))
    tensors = read_tensors(file.path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    chosen = keys_for_expert(file.name, split(tensors), shapes, expert,
                             {module: shape for module, (_, shape) in targets.items()})
    _check_finite(file.name, tensors, chosen.keys)
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, key in chosen.keys.items():
        if key.part in (parts := modules.setdefault(key.module, {})):
            raise CheckpointError(f"{file.name} holds two patches for {quoted(key.module)} of the {expert}-noise "
                                  "expert: it is several LoRAs in one file. Save each on its own.")
        parts[key.part] = tensors[name]
    factors, said = missing_factors(file.facts.alphas, chosen.keys.values(), modules)
    try:
        changes, used = read_lora(modules, targets, factors)
    except ValueError as error:
        raise CheckpointError(f"{file.name} is damaged: {error}. Fetch it again, or choose another.") from error
    match = chosen.match(used)
    check_match(file, expert, match)
    if file.lora.scale == 0.0 or not changes:
        said += "; it changes nothing at scale 0" if changes else "; it changes nothing"
    elif all(change.changes_nothing() for change in changes.values()):
        said += "; it changes nothing, because all its changes are zero"
    return changes, f"{describe_match(file, expert, match)}{said}."


def _check_finite(file: str, tensors: Mapping[str, torch.Tensor], names: Iterable[str]) -> None:
    """Raise CheckpointError for the first tensor with NaN or an infinite number in it."""
    for name in names:
        tensor = tensors[name]
        tensor = tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor  # fp8
        if tensor.is_floating_point() and tensor.numel() and not all(map(isfinite, map(float, tensor.aminmax()))):
            raise CheckpointError(f"{file} is damaged: its tensor {quoted(name)} holds NaN or infinite numbers. Fetch "
                                  "it again; if they are still there, its training went wrong: choose another.")
