"""The two stages on models that another program samples, with that program played by a function."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pipeline.models.condition import known_ends
from pipeline.request import EXPERTS, HIGH_ONLY, LOW_ONLY, RequestError, Sampling
from pipeline.sampling.bridge import ModelFacts, Stage, check_models, sample_stages
from pipeline.sampling.hooks import Hooks

TEXT = [[torch.zeros(1, 4, 8), {}]]


def test_an_idea_that_chooses_the_start_goes_through_both_stages() -> None:
    """Its start was taken by the first run, so that the second one goes on from the latent, as in our own sampler."""
    first = known_ends(torch.zeros(1, 16, 2, 4, 4))
    hooks = Hooks(start=lambda noise, sigmas: (noise, 0))

    def run(stage: Stage) -> tuple[torch.Tensor, torch.Tensor]:
        return stage.latents + 1.0, stage.latents

    half = sample_stages(run, TEXT, TEXT, first, Sampling(seed=0, stage=HIGH_ONLY), hooks=hooks)
    whole = sample_stages(run, TEXT, TEXT, first, Sampling(seed=0, stage=LOW_ONLY), half, hooks)
    assert torch.equal(whole["samples"], half["samples"] + 1.0)
    with pytest.raises(RequestError, match="decide what the clip starts from"):
        sample_stages(run, TEXT, TEXT, first, Sampling(seed=0), whole, hooks)


def test_a_model_that_does_not_tell_its_text_width_is_taken() -> None:
    facts = ModelFacts("WAN21", latent_channels=16, in_channels=36, image_projection=False, text_dim=None)
    check_models({"high": facts, "low": facts}, TEXT, TEXT)
    with pytest.raises(RequestError, match="8 wide, the high-noise MODEL reads 4096"):
        check_models({"high": replace(facts, text_dim=4096)}, TEXT, TEXT)


@pytest.mark.parametrize("broken", [0, 1], ids=EXPERTS)
def test_a_model_that_gives_no_numbers_is_named(broken: int) -> None:
    ran: list[str] = []

    def run(stage: Stage) -> tuple[torch.Tensor, torch.Tensor]:
        ran.append(stage.expert)
        latents = torch.full_like(stage.latents, float("nan") if stage.expert == EXPERTS[broken] else 1.0)
        return latents, latents

    first = known_ends(torch.zeros(1, 16, 2, 4, 4))
    with pytest.raises(RuntimeError, match=f"The {EXPERTS[broken]}-noise MODEL gave values that are not numbers"):
        sample_stages(run, TEXT, TEXT, first, Sampling(seed=0, num_inference_steps=10))
    assert ran == list(EXPERTS[:broken + 1]), "nothing goes on with them"
