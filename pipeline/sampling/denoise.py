"""The denoise loop, guidance, and one pass through an expert.

What varies is passed in as functions (hooks.py), so that the loop stays the same for every use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from .hooks import NEGATIVE, PAIR, POSITIVE, AfterStep, ModelInputs, Velocity

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents, timestep) -> the guided velocity of a step, both (1, 16, T, h, w)."""


def denoise(latents: torch.Tensor, scheduler: Any, steps: range, predict_for: Callable[[int], Predict],
            after_step: AfterStep) -> torch.Tensor:
    """Run some consecutive steps of a scheduler, counted from 0; normalised latents (B, 16, T, h, w) in and out.

    `predict_for(step)` gives the prediction function of a step; it is asked before each, so that the expert can be
    brought to the device and the run stopped there. A multistep scheduler that goes on with an earlier run needs its
    history back first (`resume.restore`).
    """
    scheduler.set_begin_index(steps.start)
    for step in steps:
        timestep = scheduler.timesteps[step]
        sigma = scheduler.sigmas[step].to(latents.device)
        predict = predict_for(step)
        velocity = predict(latents, timestep.to(latents.device)).to(latents.dtype)
        clean = latents - sigma * velocity
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        latents = after_step(step, float(scheduler.sigmas[step + 1]), latents, clean)
    return latents


def velocity_of(model: torch.nn.Module, texts: Mapping[str, torch.Tensor]) -> Velocity:
    """Return the velocity (B, 16, T, h, w), float32, of one pass through an expert.

    texts: embeddings (B, 512, text_dim) by branch, in the dtype to compute in. The condition goes behind the 16 noisy
    channels, as in wan/image2video.py.
    """

    def velocity(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
        batch, text = latents.shape[0], texts[branch]
        stacked = torch.cat([latents, inputs.condition.expand(batch, -1, -1, -1, -1)], dim=1).to(text.dtype)
        return model(stacked, timestep.expand(batch), text, return_dict=False, **inputs.arguments)[0].float()

    return velocity


def guided(velocity: Velocity, inputs: ModelInputs, guidance_scale: float) -> Predict:
    """Classifier-free guidance, u + guidance_scale (c - u), in two passes; at 1 the negative one is skipped."""

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        conditional = velocity(latents, timestep, POSITIVE, inputs)
        if guidance_scale == 1.0:
            return conditional
        unconditional = velocity(latents, timestep, NEGATIVE, inputs)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict


def guided_in_one_pass(velocity: Velocity, inputs: ModelInputs, guidance_scale: float) -> Predict:
    """As `guided`, with both texts in one pass of twice the batch: twice the activations, fewer and larger kernels."""
    if guidance_scale == 1.0:
        return guided(velocity, inputs, guidance_scale)

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        conditional, unconditional = velocity(torch.cat([latents, latents]), timestep, PAIR, inputs).chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict
