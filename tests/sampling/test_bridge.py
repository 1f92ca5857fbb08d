"""The two stages on models that another program samples, with that program played by a function."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.condition import known_ends
from pipeline.request import EXPERTS, Sampling
from pipeline.sampling.bridge import Stage, sample_stages

TEXT = [[torch.zeros(1, 4, 8), {}]]


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
