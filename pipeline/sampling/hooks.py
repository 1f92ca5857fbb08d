"""The seam of the sampler: what may vary while a clip is sampled, as functions that change nothing by default.

A new sampling idea is a file beside this one that makes such functions, and a node; the loop is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..request import RequestError

POSITIVE, NEGATIVE, PAIR = "positive", "negative", "pair"
"""Branches of guidance. A pass of PAIR takes both texts at once: twice the batch, the positive half first."""


@dataclass(frozen=True)
class ModelInputs:
    """The inputs of an expert beside the noisy latents, the timestep and the text."""

    condition: torch.Tensor
    """(1, 20, T, h, w): 4 mask channels, 1 where a frame is known, then the 16 normalised latents of what is known."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the model's forward."""

    def window(self, start: int, stop: int) -> ModelInputs:
        """Return the inputs of the latent frames start..stop-1 alone."""
        return replace(self, condition=self.condition[:, :, start:stop])


Velocity = Callable[[torch.Tensor, torch.Tensor, str, ModelInputs], torch.Tensor]
"""(latents (B, 16, T, h, w), timestep 0..1000, branch, inputs) -> the velocity that one pass predicts.

Latents are normalised and on the expert's device; T and the inputs' T are the same, of the whole clip or of a window.
"""
Start = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, int]]
"""(noise (1, 16, T, h, w), sigmas (steps + 1,)) -> normalised latents of the first step, and that step, from 0."""
Wrap = Callable[[Velocity, int, str], Velocity]
"""(velocity, step, HIGH or LOW) -> the velocity to use in that step; called once a step, before its first pass."""
AfterStep = Callable[[int, float, torch.Tensor, torch.Tensor], torch.Tensor]
"""(step, sigma where the next one starts, latents, predicted clean latents) -> the latents to go on with.

Latents are normalised, float32, on the CPU. To change them falsifies what a multistep scheduler remembers: have
those steps done by euler.
"""
SchedulerOf = Callable[[int, str], str]
"""(step, the chosen scheduler) -> the scheduler of that step. It begins anew after steps of another one."""
LoraScale = Callable[[int, Any], float]
"""(step, request.Lora) -> the scale of that LoRA in that step."""


def from_noise(noise: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Start from noise alone, at the first step: of the size that its sigma says, which is 1 as a rule."""
    return sigmas[0] * noise, 0


def unwrapped(velocity: Velocity, step: int, expert: str) -> Velocity:
    """Leave the velocity as it is."""
    return velocity


def unchanged(step: int, sigma_next: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Leave the latents as they are."""
    return latents


def as_chosen(step: int, scheduler: str) -> str:
    """Keep to the scheduler that the settings of the clip name."""
    return scheduler


def as_asked(step: int, lora: Any) -> float:
    """Keep the LoRA at the scale that the request gives it."""
    return lora.scale


@dataclass(frozen=True)
class Hooks:
    """The functions of one sampling idea; those it does not need change nothing."""

    start: Start = from_noise
    wrap: Wrap = unwrapped
    after_step: AfterStep = unchanged
    lora_scale: LoraScale = as_asked
    scheduler: SchedulerOf = as_chosen


NO_HOOKS = Hooks()


def observe(before_pass: Callable[[int, str], None] = lambda step, expert: None,
            after_step: Callable[[int, torch.Tensor], None] = lambda step, clean: None) -> Hooks:
    """Return hooks that look on; either function may raise to stop the run.

    `before_pass(step, expert)` precedes each pass through an expert (HIGH or LOW); `after_step(step, clean)` follows
    each step with the predicted clean, normalised latents (1, 16, T, h, w).
    """

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        def observed(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            before_pass(step, expert)
            return velocity(latents, timestep, branch, inputs)

        return observed

    def looked_at(step: int, sigma_next: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        after_step(step, clean)
        return latents

    return Hooks(wrap=wrap, after_step=looked_at)


def combine(*ideas: Hooks) -> Hooks:
    """Return one set of hooks for several: the first is innermost, and its after_step runs first.

    Raises RequestError when two of them choose the start, the scale of LoRAs, or the scheduler.
    """
    starts = [idea.start for idea in ideas if idea.start is not from_noise]
    scales = [idea.lora_scale for idea in ideas if idea.lora_scale is not as_asked]
    schedulers = [idea.scheduler for idea in ideas if idea.scheduler is not as_chosen]
    wraps = [idea.wrap for idea in ideas if idea.wrap is not unwrapped]
    after = [idea.after_step for idea in ideas if idea.after_step is not unchanged]
    for what, found in (("where the clip starts from", starts), ("the scale of LoRAs", scales),
                        ("the scheduler", schedulers)):
        if len(found) > 1:
            raise RequestError(f"{len(found)} inputs of the sampler decide {what}. Disconnect all but one.")

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        for outer in wraps:
            velocity = outer(velocity, step, expert)
        return velocity

    def after_step(step: int, sigma_next: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        for change in after:
            latents = change(step, sigma_next, latents, clean)
        return latents

    return Hooks(*(starts or [from_noise]), wrap if wraps else unwrapped, after_step if after else unchanged,
                 *(scales or [as_asked]), *(schedulers or [as_chosen]))
