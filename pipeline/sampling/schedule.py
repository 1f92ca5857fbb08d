"""The noise schedule, as one explicit table of sigmas, and which expert takes which of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..node_inputs import NodeInputs
from ..request import BOTH, HIGH, HIGH_ONLY, LOW, LOW_ONLY, SCHEDULERS, RequestError, Sampling
from .sigma_lists import DISTILLED, THINNED, read_sigmas, thinned

if TYPE_CHECKING:
    import torch

NUM_TRAIN_TIMESTEPS = 1000
ROUNDING = 1e-4
"""Of a timestep: more than float32 loses. A step that starts at the boundary itself is not left to it."""
NOISE_ALONE = 0.9
"""At a sigma below this, noise without a clip in it is no start."""
FEW_STEPS = 8
"""With so many steps or fewer the undistilled model gives poor clips: the user has a distilled LoRA in mind."""


def sigma_table(num_inference_steps: int, shift: float) -> np.ndarray:
    """Return the sigmas of every step's start and of the end: (num_inference_steps + 1,), from 1 down to 0.

    Evenly spaced in time, then shifted: s' = shift s / (1 + (shift - 1) s), equation 23 of "Scaling Rectified Flow
    Transformers" (Esser et al. 2024), as wan/utils/fm_solvers.py `get_sampling_sigmas` of Wan 2.2 has it, and
    ComfyUI's "simple" scheduler up to its rounding to a table of 1000 sigmas.
    """
    even = np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps)
    return np.append(shift * even / (1.0 + (shift - 1.0) * even), 0.0)


def sigmas_of(sampling: Sampling) -> np.ndarray:
    """Return the sigmas of a clip's steps and of the end, (steps + 1,), from at most 1 down to 0.

    With `denoise` below 1 the last ones of a table of num_inference_steps / denoise steps, as ComfyUI's KSampler has
    it (comfy/samplers.py, KSampler.set_steps): the same number of steps from a lower start. Of a list that is given as
    such, its last steps, as ComfyUI's SplitSigmasDenoise has it.
    """
    if has_own_list(sampling):
        listed = sampling.sigmas or DISTILLED[sampling.sigma_schedule]
        return np.array([*listed[-max(1, round(len(listed) * sampling.denoise)):], 0.0])
    steps = sampling.num_inference_steps
    table = sigma_table(int(steps / sampling.denoise), sampling.shift)[-(steps + 1):]
    if kept := THINNED.get(sampling.sigma_schedule):
        high = _high_steps(table, sampling.boundary)
        return table[[*thinned(high, steps - high, kept), steps]]
    return table


def has_own_list(sampling: Sampling) -> bool:
    """Tell whether the sigmas are given as such, so that num_inference_steps and shift are not read."""
    return bool(sampling.sigmas) or sampling.sigma_schedule in DISTILLED


def step_count(sampling: Sampling) -> int:
    """Return how many steps the whole clip takes, of both experts."""
    return len(sigmas_of(sampling)) - 1


def expert_for(timestep: float, boundary: float) -> str:
    """Return HIGH or LOW for a step that starts at `timestep` (0..1000).

    The rule of wan/image2video.py and of diffusers' WanImageToVideoPipeline: high-noise iff the timestep at the
    START of the step is at least boundary * 1000.
    """
    return HIGH if timestep >= boundary * NUM_TRAIN_TIMESTEPS - ROUNDING else LOW


def spans(sampling: Sampling) -> dict[str, range]:
    """Return the steps, counted from 0, that each expert takes, by HIGH and LOW; either may have none.

    From the table, not from a scheduler: UniPC cuts its timesteps to whole numbers, and a step must not change its
    expert with the scheduler.
    """
    sigmas = sigmas_of(sampling)
    high = _high_steps(sigmas, sampling.boundary)
    return {HIGH: range(high), LOW: range(high, len(sigmas) - 1)}


def _high_steps(sigmas: np.ndarray, boundary: float) -> int:
    """Return how many steps of a table, (steps + 1,), are the high-noise expert's."""
    return sum(expert_for(timestep, boundary) == HIGH for timestep in sigmas[:-1] * NUM_TRAIN_TIMESTEPS)


def steps_of(sampling: Sampling) -> range:
    """Return the steps of the chosen stage. Raises RequestError for a stage that has none."""
    of = spans(sampling)
    steps = {BOTH: range(of[LOW].stop), HIGH_ONLY: of[HIGH], LOW_ONLY: of[LOW]}[sampling.stage]
    if not steps:
        raise RequestError(f"stage is {sampling.stage!r}, but {describe_split(sampling)}. Change the boundary "
                           f"({sampling.boundary:g}), the shift, the sigmas or denoise, or set stage to {BOTH!r}.")
    return steps


def new_scheduler(name: str, sigmas: np.ndarray, noise: torch.Generator | None = None) -> Any:
    """Make a diffusers flow-matching scheduler that steps along `sigmas`, a table that ends with 0.

    `lcm` draws fresh noise n from `noise` in every step: x' = (1 - s') (x - s v) + s' n, the step that consistency
    models are distilled for. The others draw none. Raises ValueError for an unknown name, and for lcm without noise.

    The schedulers' own shift stays 1: FlowMatchEulerDiscreteScheduler given a shift applies it to sigma_min too and
    then again to the table, which ends 4 steps at 0.024 instead of 0.625. DPMSolverMultistepScheduler's set_timesteps
    takes no table and makes one from 0.999 down, so that what it would set is set here.
    """
    import torch
    from diffusers import (
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        FlowMatchLCMScheduler,
        UniPCMultistepScheduler,
    )

    flow = {"num_train_timesteps": NUM_TRAIN_TIMESTEPS, "use_flow_sigmas": True, "flow_shift": 1.0,
            "prediction_type": "flow_prediction"}
    if name == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=1.0)
        scheduler.set_timesteps(sigmas=sigmas[:-1])
    elif name == "unipc":
        scheduler = UniPCMultistepScheduler(**flow)
        scheduler.set_timesteps(sigmas=sigmas[:-1])
    elif name == "dpmpp_2m":
        scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **flow)
        scheduler.num_inference_steps = len(sigmas) - 1
        scheduler.sigmas = torch.from_numpy(sigmas).float()
        scheduler.timesteps = scheduler.sigmas[:-1] * NUM_TRAIN_TIMESTEPS
    elif name == "lcm" and noise is None:
        raise ValueError("The scheduler lcm draws noise in every step; give it the generator to draw from.")
    elif name == "lcm":
        scheduler = FlowMatchLCMScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=1.0)
        scheduler.set_timesteps(sigmas=sigmas[:-1])
        scheduler.step = partial(scheduler.step, generator=noise)
    else:
        raise ValueError(f"Unknown scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}.")
    return scheduler


def describe_split(sampling: Sampling) -> str:
    """Say which expert takes which step: 'steps 1-11 high-noise, 12-30 low-noise'."""
    parts = [f"{span.start + 1}-{span.stop} {expert}-noise" for expert, span in spans(sampling).items() if span]
    return f"steps {', '.join(parts)}"


def split_warning(sampling: Sampling) -> str:
    """Warn, in a sentence, of a split that is hardly intended; an empty string for any other."""
    high, low = spans(sampling).values()
    from_noise = sampling.denoise == 1.0 and sigmas_of(sampling)[0] >= NOISE_ALONE
    if from_noise and not (high and low):
        used, unused = (HIGH, LOW) if high else (LOW, HIGH)
        return (f"All steps go to the {used}-noise expert and none to the {unused}-noise one; Wan 2.2 image-to-video "
                "is made for a boundary of 0.9 and a shift of 5.")
    uneven = abs(len(high) - len(low)) > 1
    if low.stop <= FEW_STEPS and (max(sampling.guidance.values()) > 1.0 or uneven):
        return (f"Only {low.stop} steps, {len(high)} + {len(low)}, at guidance {sampling.guidance[HIGH]:g} and "
                f"{sampling.guidance[LOW]:g}: a 4-step distill LoRA wants 2 + 2 steps at shift 5 and guidance 1; "
                "without one take 20 or more.")
    return ""


def describe_run(sampling: Sampling) -> str:
    """Say the split, the steps of it that the chosen stage runs, and a warning where one is due."""
    steps = steps_of(sampling)
    part = "" if sampling.stage == BOTH else f"; this run takes {steps.start + 1}-{steps.stop}"
    warning = split_warning(sampling)
    return describe_split(sampling) + part + (f". {warning}" if warning else "")


INPUTS = {"num_inference_steps": int, "guidance_scale": float, "guidance_scale_2": float, "scheduler": str,
          "shift": float, "boundary": float, "denoise": float, "stage": str, "sigma_schedule": str, "sigmas": str}
DECIDING = ("num_inference_steps", "shift", "boundary", "denoise", "stage", "sigma_schedule", "sigmas")
"""Inputs that the split depends on."""


@dataclass(frozen=True)
class StepPreview:
    """The steps of each expert, first and last, counted from 1; None: there are none, or they are not known."""

    high: tuple[int, int] | None = None
    low: tuple[int, int] | None = None
    run: tuple[int, int] | None = None
    """The steps that this run takes, where it does not take all."""
    warning: str = ""
    unknown: tuple[str, ...] = ()
    """Inputs of other nodes that the split depends on: nothing else is told then."""


def preview_steps(inputs: NodeInputs) -> StepPreview:
    """Tell which steps each expert will take, for settings that are still being chosen on a node.

    Raises RequestError with the sentence that the run would end with.
    """
    if unknown := tuple(name for name in DECIDING if name in inputs.linked):
        return StepPreview(unknown=unknown)
    sampling = Sampling(0, **{**inputs.values, "guidance_scale_2": inputs.values.get("guidance_scale_2") or None,
                              "sigmas": read_sigmas(inputs.values.get("sigmas", ""))})
    sampling.check()
    steps = steps_of(sampling)
    high, low = (_counted(span) for span in spans(sampling).values())
    # With few steps the warning names the guidance, which is not known when it is linked.
    silent = step_count(sampling) <= FEW_STEPS and inputs.linked & {"guidance_scale", "guidance_scale_2"}
    warning = "" if silent else split_warning(sampling)
    return StepPreview(high, low, None if sampling.stage == BOTH else _counted(steps), warning)


def _counted(span: range) -> tuple[int, int] | None:
    return (span.start + 1, span.stop) if span else None
