"""The denoise loop. What varies is passed in as functions, so that the loop stays the same for every use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents, timestep) -> predicted velocity, both (B, 16, T, h, w)."""
Velocity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents, timestep, text embeddings (B, 512, text_dim)) -> the velocity that one pass through a model predicts."""
AfterStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step index, latents, predicted clean latents) -> the latents to go on with."""


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
        latents = after_step(step, latents, clean)
    return latents


def velocity_of(model: torch.nn.Module, condition: torch.Tensor, before_pass: Callable[[], None]) -> Velocity:
    """One pass through an expert, in float32 out.

    condition: (1, 20, T, h, w), 4 mask and 16 normalised first-frame channels, put behind the 16 noisy ones as in
    wan/image2video.py. `before_pass` runs before each pass; it may raise to stop the run.
    """

    def velocity(latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        before_pass()
        batch = latents.shape[0]
        stacked = torch.cat([latents, condition.expand(batch, -1, -1, -1, -1)], dim=1).to(text.dtype)
        return model(stacked, timestep.expand(batch), text, return_dict=False)[0].float()

    return velocity


def guided(velocity: Velocity, positive: torch.Tensor, negative: torch.Tensor, guidance_scale: float) -> Predict:
    """Classifier-free guidance, u + guidance_scale (c - u), in two passes; at 1 the negative one is skipped.

    positive, negative: text embeddings (B, 512, text_dim).
    """

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        conditional = velocity(latents, timestep, positive)
        if guidance_scale == 1.0:
            return conditional
        unconditional = velocity(latents, timestep, negative)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict


def guided_in_one_pass(velocity: Velocity, positive: torch.Tensor, negative: torch.Tensor,
                       guidance_scale: float) -> Predict:
    """As `guided`, with both texts in one pass of twice the batch: twice the activations, fewer and larger kernels."""
    if guidance_scale == 1.0:
        return guided(velocity, positive, negative, guidance_scale)
    texts = torch.cat([positive, negative])

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        conditional, unconditional = velocity(torch.cat([latents, latents]), timestep, texts).chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict
