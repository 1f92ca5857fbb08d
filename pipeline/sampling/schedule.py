"""The noise schedule, as one explicit table of sigmas, and which expert takes which of its steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..request import Sampling

NUM_TRAIN_TIMESTEPS = 1000
SCHEDULERS = ("euler", "unipc")
HIGH, LOW = 0, 1
EXPERT_NAMES = ("high-noise", "low-noise")


def sigma_table(num_inference_steps: int, shift: float) -> np.ndarray:
    """Sigmas of every step's start and of the end: (num_inference_steps + 1,), from 1 down to 0.

    Evenly spaced in time, then shifted: s' = shift s / (1 + (shift - 1) s), equation 23 of "Scaling Rectified Flow
    Transformers" (Esser et al. 2024), as wan/utils/fm_solvers.py `get_sampling_sigmas` of Wan 2.2 and ComfyUI's
    "simple" scheduler have it.
    """
    even = np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps)
    return np.append(shift * even / (1.0 + (shift - 1.0) * even), 0.0)


def expert_for(timestep: float, boundary: float) -> int:
    """HIGH or LOW for a step that starts at `timestep` (0..1000).

    The rule of wan/image2video.py and of diffusers' WanImageToVideoPipeline: high-noise iff the timestep at the
    START of the step is at least boundary * 1000.
    """
    return HIGH if timestep >= boundary * NUM_TRAIN_TIMESTEPS else LOW


def new_scheduler(name: str, num_inference_steps: int, shift: float) -> Any:
    """A diffusers flow-matching scheduler with its timesteps set from `sigma_table`.

    The schedulers' own shift stays 1: FlowMatchEulerDiscreteScheduler given a shift applies it to sigma_min too and
    then again to the table, which ends 4 steps at 0.024 instead of 0.625.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if name == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=1.0)
    elif name == "unipc":
        scheduler = UniPCMultistepScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, use_flow_sigmas=True,
                                            prediction_type="flow_prediction", flow_shift=1.0)
    else:
        raise ValueError(f"Unknown scheduler {name!r}; choose one of {', '.join(SCHEDULERS)}.")
    scheduler.set_timesteps(sigmas=sigma_table(num_inference_steps, shift)[:-1])
    return scheduler


def describe_split(sampling: Sampling) -> str:
    """'steps 1-11 high-noise, 12-30 low-noise': which expert takes which step."""
    timesteps = sigma_table(sampling.num_inference_steps, sampling.shift)[:-1] * NUM_TRAIN_TIMESTEPS
    high = sum(expert_for(t, sampling.boundary) == HIGH for t in timesteps)
    total = len(timesteps)
    if high in (0, total):
        return f"steps 1-{total} {EXPERT_NAMES[HIGH if high else LOW]}"
    return f"steps 1-{high} {EXPERT_NAMES[HIGH]}, {high + 1}-{total} {EXPERT_NAMES[LOW]}"
