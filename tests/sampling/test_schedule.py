"""The sigma table, the expert of each step and the schedulers that are given both."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from pipeline.request import HIGH, LOW, SCHEDULERS, RequestError, Sampling
from pipeline.sampling import schedule


def test_four_steps_at_shift_5_are_those_of_the_distilled_models() -> None:
    """Timesteps 1000, 937.5, 833.3, 625, as published for the four-step Wan 2.2 models."""
    assert schedule.sigma_table(4, 5.0).tolist() == pytest.approx([1, 0.9375, 5 / 6, 0.625, 0])


@pytest.mark.parametrize("steps", [1, 4, 20, 100])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_step_along_the_table(name: str, steps: int) -> None:
    table = schedule.sigma_table(steps, 5.0)
    scheduler = schedule.new_scheduler(name, table, torch.Generator())
    # UniPC starts a millionth lower, since the logarithm of 1 - 1 has no value.
    np.testing.assert_allclose(scheduler.sigmas.numpy(), table, atol=2e-6 if name == "unipc" else 1e-7)
    assert len(scheduler.timesteps) == steps
    np.testing.assert_allclose(scheduler.timesteps.numpy(), table[:-1] * 1000, atol=1.0 if name == "unipc" else 1e-4)


@pytest.mark.parametrize(("steps", "shift", "high"), [(40, 3, 11), (40, 5, 15), (40, 8, 19), (20, 5, 8), (20, 8, 10),
                                                      (4, 5, 2), (8, 5, 3), (30, 5, 11)])
def test_known_splits(steps: int, shift: float, high: int) -> None:
    sampling = Sampling(seed=0, num_inference_steps=steps, shift=shift)
    assert schedule.spans(sampling) == {HIGH: range(high), LOW: range(high, steps)}


def official_high_steps(steps: int, shift: int, boundary: Fraction) -> int:
    """wan/image2video.py: get_sampling_sigmas, whole-number timesteps, high-noise iff t >= boundary * 1000.

    In fractions, so that a step that starts exactly at the boundary is not left to rounding.
    """
    even = [1 - Fraction(i, steps) for i in range(steps)]
    timesteps = [int(1000 * shift * s / (1 + (shift - 1) * s)) for s in even]
    return sum(t >= boundary * 1000 for t in timesteps)


@pytest.mark.parametrize("shift", [3, 5, 8])
@pytest.mark.parametrize("steps", range(1, 101))
def test_the_split_is_that_of_the_official_rule(steps: int, shift: int) -> None:
    high, low = schedule.spans(Sampling(seed=0, num_inference_steps=steps, shift=shift)).values()
    assert len(high) == official_high_steps(steps, shift, Fraction(9, 10))
    assert (high.start, high.stop, low.stop) == (0, low.start, steps)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_does_not_move_the_split(name: str) -> None:
    """UniPC's timestep for 937.5 is 937, which is below a boundary of 0.9375; the split stays as announced."""
    sampling = Sampling(seed=0, num_inference_steps=4, boundary=0.9375, scheduler=name)
    assert schedule.spans(sampling) == {HIGH: range(2), LOW: range(2, 4)}


@pytest.mark.parametrize(("steps", "denoise", "of"), [(10, 0.5, 20), (10, 0.8, 12), (20, 0.33, 60), (30, 1.0, 30)])
def test_denoise_takes_the_last_steps_of_a_longer_table(steps: int, denoise: float, of: int) -> None:
    sigmas = schedule.sigmas_of(Sampling(seed=0, num_inference_steps=steps, denoise=denoise))
    np.testing.assert_array_equal(sigmas, schedule.sigma_table(of, 5.0)[of - steps:])


def test_the_boundary_itself_belongs_to_the_high_noise_expert() -> None:
    assert schedule.expert_for(900.0, 0.9) == HIGH
    assert schedule.expert_for(899.999, 0.9) == LOW


def test_split_in_words() -> None:
    assert schedule.describe_split(Sampling(seed=0)) == "steps 1-11 high-noise, 12-30 low-noise"
    assert schedule.describe_split(Sampling(seed=0, boundary=1.0)) == "steps 1-1 high-noise, 2-30 low-noise"
    assert schedule.describe_split(Sampling(seed=0, boundary=0.0)) == "steps 1-30 high-noise"


@pytest.mark.parametrize(("settings", "said"), [
    ({"boundary": 0.0}, "All steps go to the high-noise expert and none to the low-noise one"),
    ({"shift": 1.0, "num_inference_steps": 4, "boundary": 1.0, "guidance_scale": 1.0}, "Only 4 steps, 1 \\+ 3"),
    ({"num_inference_steps": 4}, "guidance 5 and 5: a 4-step distill LoRA wants 2 \\+ 2 steps at shift 5"),
    ({"num_inference_steps": 4, "guidance_scale": 1.0, "guidance_scale_2": 2.0}, "at guidance 1 and 2"),
    ({"num_inference_steps": 8, "guidance_scale": 1.0}, "Only 8 steps, 3 \\+ 5"),
])
def test_a_split_that_makes_no_sense_is_told(settings: dict, said: str) -> None:
    sampling = Sampling(seed=0, **settings)
    assert re.search(said, schedule.split_warning(sampling))
    assert schedule.split_warning(sampling) in schedule.describe_run(sampling)


@pytest.mark.parametrize("settings", [{}, {"num_inference_steps": 4, "guidance_scale": 1.0}, {"denoise": 0.4},
                                      {"num_inference_steps": 9}])
def test_a_usual_split_gives_no_warning(settings: dict) -> None:
    assert schedule.split_warning(Sampling(seed=0, **settings)) == ""


def test_a_stage_is_described_with_its_steps() -> None:
    assert schedule.describe_run(Sampling(seed=0, stage="low-noise only")) == (
        "steps 1-11 high-noise, 12-30 low-noise; this run takes 12-30")
    assert schedule.steps_of(Sampling(seed=0, stage="high-noise only")) == range(11)
    assert schedule.steps_of(Sampling(seed=0)) == range(30)


def test_a_stage_without_steps_is_refused() -> None:
    with pytest.raises(RequestError, match=r"stage is 'high-noise only', but steps 1-30 low-noise.* or set stage to"):
        schedule.steps_of(Sampling(seed=0, denoise=0.4, stage="high-noise only"))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_solve_a_straight_path_exactly(name: str) -> None:
    """With the true velocity of a straight path from noise to a point, every solver must arrive at that point.

    The noise that lcm draws on the way is the beginning of another straight path there.
    """
    g = torch.Generator().manual_seed(0)
    x, point = torch.randn(2, 1, 16, 2, 4, 4, generator=g)
    scheduler = schedule.new_scheduler(name, schedule.sigma_table(12, 5.0), g)
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = scheduler.step((x - point) / sigma, timestep, x, return_dict=False)[0]
    torch.testing.assert_close(x, point, atol=2e-3, rtol=0)


def test_unknown_scheduler() -> None:
    with pytest.raises(ValueError, match="choose one of euler, unipc, dpmpp_2m"):
        schedule.new_scheduler("heun", schedule.sigma_table(20, 5.0))
    with pytest.raises(ValueError, match="lcm draws noise in every step"):
        schedule.new_scheduler("lcm", schedule.sigma_table(20, 5.0))
