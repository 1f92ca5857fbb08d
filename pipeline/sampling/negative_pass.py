"""The negative pass in every n-th step alone: in the steps between, what guidance added to the velocity is used again."""

from __future__ import annotations

import torch

from ..request import RequestError
from .hooks import NEGATIVE, NO_HOOKS, PAIR, POSITIVE, Hooks, ModelInputs, Velocity

MAX_EVERY = 10


def negative_pass_every(every: int) -> Hooks:
    """Return hooks that run the negative pass in the first step of each expert and in every n-th after it, n = every.

    In a step between, with c its positive velocity, the negative one is taken for c - (c' - u'), c' and u' being those
    of the last step with both: so the guided velocity is c + (g - 1) (c' - u'). To take it for u' would multiply by g
    what c has changed since. Raises RequestError unless every is 1..10; 1 changes nothing.
    """
    if not 1 <= every <= MAX_EVERY:
        raise RequestError(f"negative_pass_every is {every}; choose 1 (every step) to {MAX_EVERY}.")
    if every == 1:
        return NO_HOOKS
    first: dict[str, int] = {}
    difference: dict[str, torch.Tensor] = {}

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        due = (step - first.setdefault(expert, step)) % every == 0
        seen: dict[str, torch.Tensor] = {}

        def reused(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            if branch == PAIR and not due:
                positive = velocity(latents.chunk(2)[0], timestep, POSITIVE, inputs)
                return torch.cat([positive, positive - difference[expert]])
            if branch == NEGATIVE and not due:
                return seen[POSITIVE] - difference[expert]
            found = seen[branch] = velocity(latents, timestep, branch, inputs)
            if branch != POSITIVE:
                positive, negative = found.chunk(2) if branch == PAIR else (seen[POSITIVE], found)
                difference.clear()
                difference[expert] = positive - negative
            return found

        return reused

    return Hooks(wrap=wrap)
