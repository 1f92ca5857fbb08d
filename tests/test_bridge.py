"""The two stages on models that another program samples, with that program played by a function."""

from __future__ import annotations

import pytest
import torch

from pipeline.models.first_frame import FirstFrame
from pipeline.request import Sampling
from pipeline.sampling.bridge import Stage, sample_stages

TEXT = [[torch.zeros(1, 4, 8), {}]]


@pytest.mark.parametrize(("broken", "which"), [(0, "high-noise"), (1, "low-noise")])
def test_a_model_that_gives_no_numbers_is_named(broken: int, which: str) -> None:
    ran: list[int] = []

    def run(stage: Stage) -> torch.Tensor:
        ran.append(stage.expert)
        return torch.full_like(stage.latents, float("nan") if stage.expert == broken else 1.0)

    first = FirstFrame(torch.zeros(1, 16, 2, 4, 4))
    with pytest.raises(RuntimeError, match=f"The {which} MODEL gave values that are not numbers"):
        sample_stages(run, TEXT, TEXT, first, Sampling(seed=0, num_inference_steps=10))
    assert ran == list(range(broken + 1)), "nothing goes on with them"
