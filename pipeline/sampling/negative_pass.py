"""The negative pass in every n-th step alone: between them, what guidance added to the velocity is used again."""

from __future__ import annotations

from typing import Any

import torch

from ..request import MAX_NEGATIVE_PASS_EVERY, RequestError
from .hooks import NEGATIVE, NO_HOOKS, PAIR, POSITIVE, Hooks, ModelInputs, Velocity


def negative_pass_every(every: int, *conditionings: list[list[Any]]) -> Hooks:
    """Return hooks that run the negative pass in the first step of each expert and in every n-th after it, n = every.

    In a step between, with c its positive velocity, the negative one is taken for c - (c' - u'), c' and u' being those
    of the last step with both, so that the guided velocity is c + (g - 1) (c' - u'). To take it for u' instead would
    multiply by g what c has changed since. bench/steps.py measures it.

    conditionings: the positive and the negative one. Raises RequestError for one of several parts, each of which is a
    branch of its own, and unless every is 1..10; 1 changes nothing.
    """
    if not 1 <= every <= MAX_NEGATIVE_PASS_EVERY:
        raise RequestError(f"negative_pass_every is {every}; choose 1 (every step) to {MAX_NEGATIVE_PASS_EVERY}.")
    if every == 1:
        return NO_HOOKS
    parts = max((len(conditioning) for conditioning in conditionings), default=1)
    if parts > 1:
        raise RequestError(f"negative_pass_every is {every}, which needs one prompt and one negative prompt; a "
                           f"conditioning has {parts} parts. Set it to 1, or connect Encode Prompt directly.")
    first: dict[str, int] = {}
    added: dict[str, torch.Tensor] = {}

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        due = (step - first.setdefault(expert, step)) % every == 0
        seen: dict[str, torch.Tensor] = {}

        def reused(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            if branch == PAIR and not due:
                positive = velocity(latents.chunk(2)[0], timestep, POSITIVE, inputs)
                return torch.cat([positive, positive - added[expert]])
            if branch == NEGATIVE and not due and expert in added and POSITIVE in seen:
                return seen[POSITIVE] - added[expert]
            found = seen[branch] = velocity(latents, timestep, branch, inputs)
            if branch == PAIR:
                seen[POSITIVE], seen[NEGATIVE] = found.chunk(2)
            if seen.keys() >= {POSITIVE, NEGATIVE}:
                added.clear()  # that of another expert with it
                added[expert] = seen[POSITIVE] - seen[NEGATIVE]
            return found

        return reused

    return Hooks(wrap=wrap)
