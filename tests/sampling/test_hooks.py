"""Sampling ideas as hooks, without a line of the loop touched: overlapping windows, a velocity used twice, and more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.lora.apply import use_loras
from pipeline.lora.bundled import bundled_lora
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.latents import normalise
from pipeline.models.load import Wan22Model
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import HIGH, HIGH_ONLY, LOW, LOW_ONLY, Lora, RequestError, Sampling
from pipeline.sampling.bridge import RunStage, sample_stages
from pipeline.sampling.denoise import guided
from pipeline.sampling.hooks import NEGATIVE, NO_HOOKS, PAIR, POSITIVE, Hooks, ModelInputs, Velocity, combine, observe
from pipeline.sampling.negative_pass import negative_pass_every
from pipeline.sampling.sampler import sample, sample_latent
from tests.support.comfy_in_process import comfy_host
from tests.support.lora_files import DRAIN

SIDE, FRAMES, STEPS, WINDOW, OVERLAP = 32, 21, 10, 4, 2
SAMPLING = Sampling(seed=4, num_inference_steps=STEPS)
HIGH_STEPS = 4
"""Of ten steps at shift 5: 1, .978, .952 and .921 are at least .9."""


def windows() -> Hooks:
    """Predict overlapping windows of latent frames and blend them, each frame weighed by its distance to the ends."""

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        def blended(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            count = latents.shape[2]
            total, weights = torch.zeros_like(latents), torch.zeros(count)
            for start in range(0, count - OVERLAP, WINDOW - OVERLAP):
                stop = min(start + WINDOW, count)
                found = velocity(latents[:, :, start:stop], timestep, branch, inputs.window(start, stop))
                ramp = torch.minimum(torch.arange(stop - start) + 1, stop - start - torch.arange(stop - start)).float()
                total[:, :, start:stop] += found * ramp[:, None, None]
                weights[start:stop] += ramp
            return total / weights[:, None, None]

        return blended

    return Hooks(wrap=wrap)


def reused() -> Hooks:
    """Take the velocity of the step before in every second step, for each branch, and never that of another expert."""
    last: dict[tuple[str, str], torch.Tensor] = {}

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        def maybe(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            if step % 2 == 0 or (expert, branch) not in last:
                last[expert, branch] = velocity(latents, timestep, branch, inputs)
            return last[expert, branch]

        return maybe

    return Hooks(wrap=wrap)


@pytest.fixture(scope="module")
def inputs(loaded: tuple) -> tuple:
    _, encoder, vae = loaded
    image = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(3))
    return *encode_prompts(encoder, "the camera pans right", ""), encode_first_frame(vae, image, SIDE, SIDE, FRAMES)


@pytest.fixture(scope="module")
def plain(model: Wan22Model, inputs: tuple) -> torch.Tensor:
    return sample(model, *inputs, SAMPLING)


class Recorder:
    """A host that looks at every pass, and at every step's preview."""

    def __init__(self) -> None:
        self.passes: list[tuple[int, str]] = []
        self.previews: list[tuple[int, tuple[int, ...]]] = []

    def hooks(self) -> Hooks:
        return observe(lambda step, expert: self.passes.append((step, expert)),
                       lambda step, clean: self.previews.append((step, tuple(clean.shape))))


@pytest.mark.parametrize("batched", [False, True], ids=["two passes", "one pass"])
def test_windows_on_both_experts_with_previews(model: Wan22Model, inputs: tuple, plain: torch.Tensor, batched: bool,
                                               ) -> None:
    recorder, sampling = Recorder(), replace(SAMPLING, batched_guidance=batched)
    found = sample(model, *inputs, sampling, combine(recorder.hooks(), windows()))
    a_step = 2 * (1 if batched else 2)  # six latent frames in two windows
    assert recorder.passes == [(step, HIGH if step < HIGH_STEPS else LOW) for step in range(STEPS)
                               for _ in range(a_step)]
    assert recorder.previews == [(step, tuple(plain.shape)) for step in range(STEPS)]
    assert found.shape == plain.shape and not torch.equal(found, plain)
    first = normalise(found)[:, :, 0] - normalise(plain)[:, :, 0]
    assert first.abs().mean() < 0.25, "the first window still knows the picture"


def test_a_window_of_the_whole_clip_changes_no_bit(model: Wan22Model, inputs: tuple, plain: torch.Tensor) -> None:
    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        return lambda latents, timestep, branch, inputs: velocity(latents, timestep, branch,
                                                                  inputs.window(0, latents.shape[2]))

    assert torch.equal(sample(model, *inputs, SAMPLING, Hooks(wrap=wrap)), plain)


def test_a_velocity_used_twice_saves_passes_on_both_experts(model: Wan22Model, inputs: tuple, plain: torch.Tensor,
                                                            ) -> None:
    recorder = Recorder()
    found = sample(model, *inputs, SAMPLING, combine(recorder.hooks(), reused()))
    assert recorder.passes == [(step, HIGH if step < HIGH_STEPS else LOW) for step in range(0, STEPS, 2)
                               for _ in range(2)]
    assert [step for step, _ in recorder.previews] == list(range(STEPS))
    apart, size = (normalise(found) - normalise(plain)).abs().mean(), normalise(plain).abs().mean()
    assert 0 < apart < 0.5 * size, "another clip, and not another picture"


def test_stop_is_heard_between_two_windows(model: Wan22Model, inputs: tuple) -> None:
    class Stopped(BaseException):
        pass

    passes = 0

    def stop(step: int, expert: str) -> None:
        nonlocal passes
        passes += 1
        if passes == 6:
            raise Stopped

    with pytest.raises(Stopped):
        sample(model, *inputs, SAMPLING, combine(observe(before_pass=stop), windows()))
    assert passes == 6


def test_a_hook_starts_the_clip_and_steers_it(model: Wan22Model, inputs: tuple, plain: torch.Tensor) -> None:
    """From a given clip on the straight path to noise, as image to image does it; to the same bits."""
    sampling = replace(SAMPLING, denoise=0.5)
    wanted = sample_latent(model, *inputs, sampling, latent={"samples": plain})["samples"]
    seen: list[float] = []

    def start(noise: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, int]:
        seen.extend(sigmas.tolist())
        step = int((sigmas <= 0.9).nonzero()[0])
        sigma = float(sigmas[step])
        return sigma * noise + (1.0 - sigma) * normalise(plain), step

    recorder = Recorder()
    found = sample(model, *inputs, SAMPLING, combine(recorder.hooks(), Hooks(start=start)))
    assert len(seen) == STEPS + 1 and seen[0] == 1.0 and seen[-1] == 0.0
    assert {expert for _, expert in recorder.passes} == {LOW} and recorder.passes[0][0] == HIGH_STEPS
    assert (normalise(found) - normalise(wanted)).abs().mean() < 0.5

    def pull(step: int, sigma_next: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return latents if sigma_next else normalise(plain)

    assert torch.allclose(sample(model, *inputs, SAMPLING, Hooks(after_step=pull)), plain, atol=1e-5)


def test_hooks_go_on_in_the_second_of_two_runs(model: Wan22Model, inputs: tuple) -> None:
    whole = sample(model, *inputs, SAMPLING, windows())
    half = sample_latent(model, *inputs, replace(SAMPLING, stage=HIGH_ONLY), windows())
    assert torch.equal(sample_latent(model, *inputs, replace(SAMPLING, stage=LOW_ONLY), windows(), half)["samples"],
                       whole)


def test_two_ideas_that_contradict_each_other_are_refused(model: Wan22Model, inputs: tuple, plain: torch.Tensor,
                                                          ) -> None:
    start = Hooks(start=lambda noise, sigmas: (noise, 0))
    with pytest.raises(RequestError, match="2 inputs of the sampler decide where the clip starts"):
        combine(start, replace(start, start=lambda noise, sigmas: (noise, 1)))
    with pytest.raises(RequestError, match="Both the latent and another input"):
        sample_latent(model, *inputs, replace(SAMPLING, denoise=0.5), start, {"samples": plain})
    late = Hooks(start=lambda noise, sigmas: (noise, HIGH_STEPS))
    with pytest.raises(RequestError, match="starts at step 5, but this run ends with step 4"):
        sample_latent(model, *inputs, replace(SAMPLING, stage=HIGH_ONLY), late)


def test_a_lora_that_fades_out(inputs: tuple) -> None:
    """With a scale by step: none at all, as if it were not there; in the high-noise steps alone, as its high half."""
    host = comfy_host()
    model, _, _ = bundled.load(host)
    high, low = (Lora(DRAIN[half].name, 1.0, half) for half in (HIGH, LOW))

    def run(loras: tuple[Lora, ...], hooks: Hooks = NO_HOOKS) -> torch.Tensor:
        changed, _ = use_loras(model, loras, bundled_lora, None, lambda: None)
        return sample(changed, *inputs, SAMPLING, hooks)

    without, with_high, with_both = run(()), run((high,)), run((high, low))
    assert not torch.equal(with_high, without) and not torch.equal(with_both, with_high)
    assert torch.equal(run((high, low), Hooks(lora_scale=lambda step, lora: 0.0)), without)
    assert torch.equal(run((high, low), Hooks(lora_scale=lambda step, lora: lora.scale * (step < HIGH_STEPS))),
                       with_high)


@pytest.fixture(scope="module")
def run(core: dict[str, Any]) -> RunStage:
    from pipeline.host.sampling import stage_runner

    return stage_runner(core, SAMPLING)


@pytest.mark.parametrize("idea", [windows, reused])
@torch.inference_mode()
def test_the_same_ideas_on_comfyuis_own_sampling(model: Wan22Model, inputs: tuple, run: RunStage, idea: Any) -> None:
    """The bridge gives the clip that our sampler gives with the same hooks."""
    recorder = Recorder()
    found = sample_stages(run, *inputs, SAMPLING, hooks=combine(recorder.hooks(), idea()))["samples"]
    wanted = sample(model, *inputs, SAMPLING, idea())
    plainly = sample_stages(run, *inputs, SAMPLING)["samples"]
    scale = normalise(wanted).std()
    assert (normalise(found) - normalise(wanted)).abs().max() < 0.05 * scale
    assert (normalise(found) - normalise(plainly)).abs().max() > 0.2 * scale
    assert {expert for _, expert in recorder.passes} == {HIGH, LOW}
    assert [step for step, _ in recorder.previews] == list(range(STEPS))


@torch.inference_mode()
def test_what_another_program_cannot_do_is_refused(inputs: tuple, run: RunStage) -> None:
    with pytest.raises(RequestError, match="keeps its scale in every step"):
        sample_stages(run, *inputs, SAMPLING, hooks=Hooks(lora_scale=lambda step, lora: 1.0))
    with pytest.raises(RequestError, match="needs the scheduler euler"):
        sample_stages(run, *inputs, replace(SAMPLING, scheduler="unipc"),
                      hooks=Hooks(after_step=lambda step, sigma, latents, clean: latents))


@pytest.mark.parametrize("batched", [False, True], ids=["two passes", "one pass"])
def test_the_negative_pass_in_every_second_step(model: Wan22Model, inputs: tuple, plain: torch.Tensor, batched: bool,
                                                ) -> None:
    """In the first step of each expert and every second one after it; each pass sees the velocity of its step."""
    branches: list[tuple[int, str]] = []

    def seen(velocity: Velocity, step: int, expert: str) -> Velocity:
        def looked_at(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            branches.append((step, branch))
            return velocity(latents, timestep, branch, inputs)

        return looked_at

    sampling = replace(SAMPLING, batched_guidance=batched)
    found = sample(model, *inputs, sampling, combine(Hooks(wrap=seen), negative_pass_every(2)))
    both = [PAIR] if batched else [POSITIVE, NEGATIVE]
    due = [0, 2, *range(HIGH_STEPS, STEPS, 2)]
    assert branches == [(step, branch) for step in range(STEPS) for branch in (both if step in due else [POSITIVE])]
    apart, size = (normalise(found) - normalise(plain)).abs().mean(), normalise(plain).abs().mean()
    assert 0 < apart < 0.1 * size
    by_the_other = sample(model, *inputs, replace(SAMPLING, batched_guidance=not batched), negative_pass_every(2))
    assert torch.allclose(by_the_other, found, atol=1e-3)


def test_what_guidance_added_is_used_again(inputs: tuple) -> None:
    """c + (g - 1) (c' - u') with the c of this step, and c' and u' of the step before; all anew for another expert."""
    values = {0: {POSITIVE: 3.0, NEGATIVE: 1.0}, 1: {POSITIVE: 4.0}, 3: {POSITIVE: 5.0, NEGATIVE: 9.0},
              4: {POSITIVE: 6.0}}
    hooks = negative_pass_every(2)
    for step, expert, wanted in ((0, HIGH, 1 + 5 * (3 - 1)), (1, HIGH, 4 + 4 * (3 - 1)), (3, LOW, 9 + 5 * (5 - 9)),
                                 (4, LOW, 6 + 4 * (5 - 9))):
        velocity = hooks.wrap(lambda x, t, branch, i, step=step: torch.tensor(values[step][branch]), step, expert)
        predict = guided(velocity, ModelInputs(torch.zeros(1)), 5.0)
        assert predict(torch.zeros(1), torch.tensor(900.0)) == wanted
    assert negative_pass_every(1) is NO_HOOKS
    with pytest.raises(RequestError, match="negative_pass_every is 11; choose 1"):
        negative_pass_every(11)
    with pytest.raises(RequestError, match="needs one prompt and one negative prompt; a conditioning has 2 parts"):
        negative_pass_every(2, inputs[0], inputs[1] * 2)


def test_fewer_negative_passes_in_two_runs(model: Wan22Model, inputs: tuple) -> None:
    half = sample_latent(model, *inputs, replace(SAMPLING, stage=HIGH_ONLY), negative_pass_every(3))
    found = sample_latent(model, *inputs, replace(SAMPLING, stage=LOW_ONLY), negative_pass_every(3), half)["samples"]
    assert torch.equal(found, sample(model, *inputs, SAMPLING, negative_pass_every(3)))


@pytest.mark.parametrize(("changes", "every"), [
    ({"scheduler": "lcm"}, 1), ({"sigma_schedule": "TurboDiffusion 4 steps", "scheduler": "lcm"}, 1),
    ({"sigma_schedule": "thinned 4 + 10"}, 1), ({}, 2), ({}, 2)], ids=["lcm", "TurboDiffusion", "thinned", "every 2nd",
                                                                       "every 2nd, no room for two"])
@torch.inference_mode()
def test_fewer_passes_on_comfyuis_own_sampling(model: Wan22Model, inputs: tuple, core: dict[str, Any], changes: dict,
                                               every: int, request: pytest.FixtureRequest,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge gives the clip that our sampler gives, in as many passes."""
    import comfy.model_patcher

    from pipeline.host.sampling import stage_runner

    if "no room" in request.node.name:  # ComfyUI then runs the branches one after the other, the negative one first
        monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0)
    sampling, recorder = replace(SAMPLING, **changes), Recorder()
    wanted = sample(model, *inputs, sampling, combine(recorder.hooks(), negative_pass_every(every)))
    passes = recorder.passes.copy()
    recorder.passes.clear()
    hooks = combine(recorder.hooks(), negative_pass_every(every)) if every > 1 else NO_HOOKS
    found = sample_stages(stage_runner(core, sampling), *inputs, sampling, hooks=hooks)["samples"]
    assert (normalise(found) - normalise(wanted)).abs().max() < 0.01 * normalise(wanted).std()
    assert recorder.passes == (passes if every > 1 else [])
