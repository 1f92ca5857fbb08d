"""Reading a LoRA file for an expert: the changes that it makes, and what of it found its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..checkpoint.errors import CheckpointError
from ..checkpoint.safetensors_file import read_tensors
from .match import LoraFile, check_match, describe_match, fitting
from .names import split
from .probe import check_fits

if TYPE_CHECKING:
    from ..host import ReadLora, Targets


def fit(file: LoraFile, index: int, targets: Targets, read_lora: ReadLora) -> tuple[dict[str, Any], str]:
    """The changes that a LoRA makes to an expert (parameter -> the host's own), and a sentence on what fitted.

    `index` is schedule.HIGH or LOW. Raises RequestError or CheckpointError when it does not fit.
    """
    blocks = {module.split(".")[1] for module in targets if module.startswith("blocks.")}
    check_fits(file.facts, targets["blocks.0.self_attn.q"][1][0], len(blocks))
    tensors = read_tensors(file.path)
    chosen = fitting(file.name, split(tensors), {name: tuple(tensor.shape) for name, tensor in tensors.items()}, index,
                     {module: shape for module, (_, shape) in targets.items()})
    try:
        changes, used = read_lora({f"{key.module}.{key.part}": tensors[name] for name, key in chosen.keys.items()},
                                  targets)
    except ValueError as error:
        raise CheckpointError(f"{file.name} is damaged: {error}. Fetch it again, or choose another.") from error
    match = chosen.match(used)
    check_match(file, index, match)
    return changes, f"{describe_match(file, index, match)}."
