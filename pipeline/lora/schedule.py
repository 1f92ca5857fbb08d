"""LoRAs that act in some of a clip's steps, or fade in and out, as a sampling idea."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..request import ALL_STEPS, Lora, RequestError, Sampling
from ..sampling.hooks import Hooks
from ..sampling.schedule import spans, step_count
from .source import link_name

if TYPE_CHECKING:
    from ..models.expert import Expert


def steps_of_lora(lora: Lora, total: int) -> range:
    """Return the steps of a clip of `total`, counted from 0, in which a LoRA acts; there may be none."""
    first, stop = (int(share * total + 0.5)
                   for share in (lora.schedule.start_percent, lora.schedule.end_percent))
    return range(first, stop)


def scale_at(lora: Lora, step: int, total: int) -> float:
    """Return the scale of a LoRA in a step of `total`, counted from 0: 0 outside of its steps, lower where it fades.

    Of n steps it rises over fade_in n, to its scale in the last of them, and falls over fade_out n, from its scale in
    the first of them. It is above 0 in all n.
    """
    steps = steps_of_lora(lora, total)
    if step not in steps:
        return 0.0
    rise, fall = lora.schedule.fade_in * len(steps), lora.schedule.fade_out * len(steps)
    risen = (step - steps.start + 1) / rise if rise else 1.0
    left = (steps.stop - step) / fall if fall else 1.0
    return lora.scale * min(1.0, risen, left)


def lora_hooks(loras: Sequence[Lora], sampling: Sampling) -> Hooks:
    """Return hooks that give each LoRA its scale by step; they change nothing when all keep theirs.

    Raises RequestError for a LoRA that acts in no step at all.
    """
    total = step_count(sampling)
    for lora in loras:
        if lora.scale and not steps_of_lora(lora, total):
            raise RequestError(f"The LoRA {link_name(lora.source)} acts from {lora.schedule.start_percent:.1%} to "
                               f"{lora.schedule.end_percent:.1%} of {total} steps, which is no step. "
                               "Lower start_percent, raise end_percent, or take more steps.")
    if all(lora.schedule == ALL_STEPS for lora in loras):
        return Hooks()
    return Hooks(lora_scale=lambda step, lora: scale_at(lora, step, total))


def describe_schedules(experts: Mapping[str, Expert], sampling: Sampling) -> list[str]:
    """Return a sentence on each LoRA that does not act in all steps alike, for each expert that it is on.

    experts: by HIGH and LOW.
    """
    said, total = [], step_count(sampling)
    for which, span in spans(sampling).items():
        for lora in dict.fromkeys(patch.lora for patch in experts[which].patches):
            if lora.schedule != ALL_STEPS:
                said.append(f"{link_name(lora.source)}, {which}-noise expert: {_describe(lora, span, total)}.")
    return said


def _describe(lora: Lora, span: range, total: int) -> str:
    """Describe where a LoRA acts among the steps of one expert."""
    asked = steps_of_lora(lora, total)
    steps = [step for step in asked if step in span]
    if not steps:
        return f"in none of its steps, for it acts in steps {asked.start + 1}-{asked.stop} of {total}"
    scales = sorted((scale_at(lora, step, total) for step in steps), key=abs)
    said = f"in steps {steps[0] + 1}-{steps[-1] + 1} of {total}, scale {scales[0]:.2g}"
    return said if scales[0] == scales[-1] else f"{said} to {scales[-1]:.2g}"
