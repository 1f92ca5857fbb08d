"""Stop between two steps and go on later, to the same bits as without the stop.

Two things make a run: the latents, and what a multistep scheduler remembers of earlier steps. Both are kept as they
are in memory, since a round trip through raw latents would change the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..request import Sampling

SOLVERS_WITHOUT_HISTORY = ("euler",)
_COUNTS = ("lower_order_nums", "this_order")
_OUTPUTS = ("model_outputs.1", "model_outputs.0")
"""The newest first: every solver that `new_scheduler` gives is of order 2."""


@dataclass(frozen=True)
class Unfinished:
    """A clip between two steps: normalised latents (1, 16, T, h, w), float32, CPU, after `step` steps."""

    latents: torch.Tensor
    step: int
    history: dict[str, torch.Tensor]
    """What `history` gave; empty for a scheduler that needs none."""
    schedule: dict[str, float | str]
    """What `schedule_of` gave."""


def schedule_of(sampling: Sampling) -> dict[str, float | str]:
    """The settings that a run cannot change between two steps."""
    return {name: getattr(sampling, name)
            for name in ("scheduler", "num_inference_steps", "shift", "boundary", "denoise")}


def history(scheduler: Any) -> dict[str, torch.Tensor]:
    """What a diffusers scheduler remembers of the steps it took: the last predictions, its last sample, its order.

    Names of UniPCMultistepScheduler and DPMSolverMultistepScheduler. UniPC's timestep_list is left out: only an inner
    solver reads it, and `new_scheduler` gives none.
    """
    outputs = getattr(scheduler, "model_outputs", [])
    found = {f"model_outputs.{i}": output for i, output in enumerate(outputs) if output is not None}
    found |= {name: torch.tensor(getattr(scheduler, name)) for name in _COUNTS if hasattr(scheduler, name)}
    if getattr(scheduler, "last_sample", None) is not None:
        found["last_sample"] = scheduler.last_sample
    return found


def is_whole(unfinished: Unfinished, shape: tuple[int, ...]) -> bool:
    """Whether a state that was read from a file is one that the functions here gave, for latents of that shape."""
    kinds = {name: str if name == "scheduler" else int | float for name in schedule_of(Sampling(seed=0))}
    schedule, remembered = unfinished.schedule, unfinished.history
    outputs = [name for name in _OUTPUTS if name in remembered]
    counts = [remembered[name] for name in _COUNTS if name in remembered]
    tensors = [unfinished.latents, *(value for name, value in remembered.items() if name not in _COUNTS)]
    return (isinstance(unfinished.step, int) and isinstance(schedule, dict) and schedule.keys() == kinds.keys()
            and all(isinstance(schedule[name], kind) for name, kind in kinds.items())
            and bool(remembered) == (schedule["scheduler"] not in SOLVERS_WITHOUT_HISTORY)
            and remembered.keys() <= {*_OUTPUTS, *_COUNTS, "last_sample"} and outputs == list(_OUTPUTS[:len(outputs)])
            and all(tuple(value.shape) == shape and value.is_floating_point() for value in tensors)
            and all(value.shape == () and value.dtype == torch.int64 and 0 <= value <= len(outputs)
                    for value in counts))


def restore(scheduler: Any, remembered: dict[str, torch.Tensor]) -> None:
    """Give a fresh scheduler what `history` took from another of its kind."""
    for name, value in remembered.items():
        attribute, _, index = name.partition(".")
        if index:
            getattr(scheduler, attribute)[int(index)] = value
        else:
            setattr(scheduler, attribute, value.item() if attribute in _COUNTS else value)
