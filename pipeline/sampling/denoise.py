"""The denoise loop. What varies is passed in as functions, so that the loop stays the same for every use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(latents, timestep) -> predicted velocity, both (B, 16, T, h, w)."""
AfterStep = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step index, latents, predicted clean latents) -> the latents to go on with."""


def denoise(latents: torch.Tensor, scheduler: Any, predict_for: Callable[[float], Predict],
            after_step: AfterStep) -> torch.Tensor:
    """Run every step of the scheduler and return the clean latents, normalised, (B, 16, T, h, w) float32.

    `predict_for(timestep)` gives the prediction function for a step that starts at that timestep (0..1000); it is
    asked before each step, so that the expert can be brought to the device and the run stopped there.
    """
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].to(latents.device)
        predict = predict_for(float(timestep))
        velocity = predict(latents, timestep.to(latents.device)).to(latents.dtype)
        clean = latents - sigma * velocity
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        latents = after_step(index, latents, clean)
    return latents


def guided(model: torch.nn.Module, condition: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor,
           guidance_scale: float, before_pass: Callable[[], None]) -> Predict:
    """Classifier-free guidance with one expert: u + guidance_scale (c - u); at 1 the negative pass is skipped.

    condition: (B, 20, T, h, w), 4 mask and 16 normalised first-frame channels, put behind the 16 noisy ones as in
    wan/image2video.py. positive, negative: text embeddings (B, 512, text_dim). `before_pass` runs before each pass
    through the model; it may raise to stop the run.
    """

    def velocity(latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        before_pass()
        stacked = torch.cat([latents, condition], dim=1).to(positive.dtype)
        return model(stacked, timestep.expand(latents.shape[0]), text, return_dict=False)[0].float()

    def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        conditional = velocity(latents, timestep, positive)
        if guidance_scale == 1.0:
            return conditional
        unconditional = velocity(latents, timestep, negative)
        return unconditional + guidance_scale * (conditional - unconditional)

    return predict
