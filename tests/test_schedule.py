"""The sigma table, the expert of each step and the schedulers that are given both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.request import Sampling
from pipeline.sampling import schedule


def test_four_steps_at_shift_5_are_those_of_the_distilled_models() -> None:
    """Timesteps 1000, 937.5, 833.3, 625, as published for the four-step Wan 2.2 models."""
    assert schedule.sigma_table(4, 5.0).tolist() == pytest.approx([1, 0.9375, 5 / 6, 0.625, 0])


@pytest.mark.parametrize("name", schedule.SCHEDULERS)
def test_schedulers_step_along_the_table(name: str) -> None:
    scheduler = schedule.new_scheduler(name, 20, 5.0)
    table = schedule.sigma_table(20, 5.0)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), table, atol=2e-6)
    assert len(scheduler.timesteps) == 20
    np.testing.assert_allclose(scheduler.timesteps.numpy(), table[:-1] * 1000, atol=1.0)


@pytest.mark.parametrize(("steps", "shift", "high"), [(40, 3, 11), (40, 5, 15), (40, 8, 19), (20, 5, 8), (20, 8, 10),
                                                      (4, 5, 2), (8, 5, 3), (30, 5, 11)])
def test_high_noise_steps_are_those_of_the_official_rule(steps: int, shift: float, high: int) -> None:
    table = schedule.sigma_table(steps, shift)[:-1] * 1000
    assert sum(schedule.expert_for(t, 0.9) == schedule.HIGH for t in table) == high


def test_the_boundary_itself_belongs_to_the_high_noise_expert() -> None:
    assert schedule.expert_for(900.0, 0.9) == schedule.HIGH
    assert schedule.expert_for(899.999, 0.9) == schedule.LOW


def test_split_in_words() -> None:
    assert schedule.describe_split(Sampling(seed=0)) == "steps 1-11 high-noise, 12-30 low-noise"
    assert schedule.describe_split(Sampling(seed=0, boundary=1.0)) == "steps 1-1 high-noise, 2-30 low-noise"
    assert schedule.describe_split(Sampling(seed=0, boundary=0.0)) == "steps 1-30 high-noise"


@pytest.mark.parametrize("name", schedule.SCHEDULERS)
def test_schedulers_solve_a_straight_path_exactly(name: str) -> None:
    """With the true velocity of a straight path from noise to a point, every solver must arrive at that point."""
    scheduler = schedule.new_scheduler(name, 12, 5.0)
    noise, point = torch.randn(2, 1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x = noise
    for timestep in scheduler.timesteps:
        x = scheduler.step(noise - point, timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, point, atol=2e-3, rtol=0)


def test_unknown_scheduler() -> None:
    with pytest.raises(ValueError, match="choose one of euler, unipc"):
        schedule.new_scheduler("heun", 20, 5.0)
