"""A clip in two runs, and a clip made from another: to the same bits as in one, and only where it makes sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.models.condition import encode_first_frame
from pipeline.models.latents import normalise
from pipeline.models.load import Wan22Model
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import BOTH, HIGH, HIGH_ONLY, LOW, LOW_ONLY, SCHEDULERS, RequestError, Sampling
from pipeline.sampling import schedule
from pipeline.sampling.bridge import sample_stages
from pipeline.sampling.hooks import Hooks, Velocity, observe
from pipeline.sampling.latent_file import load_latent, save_latent
from pipeline.sampling.resume import STEPS_DONE, UNFINISHED, Unfinished, check_finished, schedule_of
from pipeline.sampling.sampler import new_noise, noise_of_steps, sample_latent
from pipeline.sampling.sigma_lists import LIGHTX2V, THINNED_14, TURBO, read_sigmas
from pipeline.video.save import count_frames, decode_frames

SIDE, FRAMES, STEPS = 32, 5, 10


@pytest.fixture(scope="module")
def inputs(loaded: tuple) -> tuple:
    _, encoder, vae = loaded
    image = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(3))
    return *encode_prompts(encoder, "the camera pans right", ""), encode_first_frame(vae, image, SIDE, SIDE, FRAMES)


def settings(**changes: Any) -> Sampling:
    return Sampling(**{"seed": 4, "num_inference_steps": STEPS, **changes})


@pytest.fixture(scope="module")
def half_done(model: Wan22Model, inputs: tuple) -> dict[str, dict[str, Any]]:
    """LATENT of the high-noise stage, by scheduler."""
    return {name: sample_latent(model, *inputs, settings(scheduler=name, stage=HIGH_ONLY)) for name in SCHEDULERS}


@pytest.fixture(scope="module")
def whole(model: Wan22Model, inputs: tuple) -> dict[str, torch.Tensor]:
    """Raw latents of the same clip made in one run, by scheduler."""
    return {name: sample_latent(model, *inputs, settings(scheduler=name, stage=BOTH))["samples"]
            for name in SCHEDULERS}


def finish(model: Wan22Model, inputs: tuple, latent: dict[str, Any] | None, **changes: Any) -> torch.Tensor:
    return sample_latent(model, *inputs, settings(stage=LOW_ONLY, **changes), latent=latent)["samples"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_saved_after_the_first_stage_and_finished_later(model: Wan22Model, inputs: tuple, half_done: dict, whole: dict,
                                                        name: str, tmp_path: Path) -> None:
    save_latent(lambda: tmp_path / "half.latent", half_done[name], {"prompt": "{}"})
    half = load_latent(tmp_path / "half.latent")
    assert torch.equal(finish(model, inputs, half, scheduler=name), whole[name])


def test_each_stage_uses_its_expert_alone(model: Wan22Model, inputs: tuple, half_done: dict) -> None:
    calls: list[tuple[int, str]] = []
    hooks = observe(before_pass=lambda step, expert: calls.append((step, expert)))
    sample_latent(model, *inputs, settings(stage=HIGH_ONLY, guidance_scale=1.0), hooks)
    assert calls == [(step, HIGH) for step in range(4)]
    calls.clear()
    sample_latent(model, *inputs, settings(stage=LOW_ONLY, guidance_scale=1.0), hooks, half_done["euler"])
    assert calls == [(step, LOW) for step in range(4, STEPS)]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_both_stages_twice_from_the_same_half(model: Wan22Model, inputs: tuple, half_done: dict, whole: dict,
                                              name: str) -> None:
    """A run must not change what the half-done latent remembers: ComfyUI keeps it for the next run."""
    for _ in range(2):
        assert torch.equal(finish(model, inputs, half_done[name], scheduler=name), whole[name])


def test_euler_goes_on_from_samples_alone(model: Wan22Model, inputs: tuple, half_done: dict, whole: dict) -> None:
    """Core's Save Latent keeps no more; the way through raw latents costs the last bits."""
    found = finish(model, inputs, {"samples": half_done["euler"]["samples"]})
    assert (found - whole["euler"]).abs().max() < 1e-4
    changed = {**half_done["euler"], "samples": half_done["euler"]["samples"] * 0.9}
    assert (finish(model, inputs, changed) - whole["euler"]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["unipc", "dpmpp_2m"])
def test_solvers_with_a_history_refuse_samples_alone(model: Wan22Model, inputs: tuple, half_done: dict, name: str,
                                                     ) -> None:
    samples = half_done[name]["samples"]
    for latent in ({"samples": samples}, {**half_done[name], "samples": samples + 0.1}):
        with pytest.raises(RequestError, match=rf"{name} goes on from its own earlier steps.* Save Latent \(Wan 2.2\)"):
            finish(model, inputs, latent, scheduler=name)


@pytest.mark.parametrize(("changes", "said"), [
    ({"shift": 8.0}, r"begun with shift 5\.0; this sampler has 8\.0\. Set shift to 5\.0"),
    ({"num_inference_steps": 12}, "begun with num_inference_steps 10"),
    ({"boundary": 0.95}, r"begun with boundary 0\.9"),
    ({"scheduler": "unipc"}, "begun with scheduler euler; this sampler has unipc"),
])
def test_another_schedule_cannot_finish_a_clip(model: Wan22Model, inputs: tuple, half_done: dict, changes: dict,
                                               said: str) -> None:
    with pytest.raises(RequestError, match=said):
        finish(model, inputs, half_done["euler"], **changes)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_finished_clip_is_not_finished_again(model: Wan22Model, inputs: tuple, tmp_path: Path,
                                               through_a_file: bool) -> None:
    """Its latents hold no noise to go on from, but may be changed by denoise."""
    latent = sample_latent(model, *inputs, settings(num_inference_steps=2))
    if through_a_file:
        save_latent(lambda: tmp_path / "whole.latent", latent, {})
        latent = load_latent(tmp_path / "whole.latent")
    with pytest.raises(RequestError, match="the latent is a finished clip"):
        finish(model, inputs, latent)
    check_finished(latent)
    assert sample_latent(model, *inputs, settings(denoise=0.5, num_inference_steps=2), latent=latent)


def test_samples_alone_are_not_finished_with_other_steps(model: Wan22Model, inputs: tuple, half_done: dict) -> None:
    """As those of the bridge, which hands on no schedule."""
    half = {name: value for name, value in half_done["euler"].items() if name != UNFINISHED}
    with pytest.raises(RequestError, match=r"of which \d+ of 10 steps are done; this sampler goes on behind step"):
        finish(model, inputs, half, num_inference_steps=24, shift=8.0)
    assert finish(model, inputs, half).shape == half["samples"].shape


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_official_table_as_a_list_gives_the_same_bits(model: Wan22Model, inputs: tuple, whole: dict, name: str,
                                                          ) -> None:
    """As text, whatever the settings are that it replaces."""
    sigmas = read_sigmas(", ".join(map(repr, schedule.sigma_table(STEPS, 5.0).tolist())))
    sampling = settings(scheduler=name, sigmas=sigmas, num_inference_steps=30, shift=8.0)
    assert torch.equal(sample_latent(model, *inputs, sampling)["samples"], whole[name])


OWN = {"sigmas": (1.0, 0.95, 0.91, 0.7, 0.3)}
LISTS = ({"sigma_schedule": THINNED_14, "num_inference_steps": 40}, {"sigma_schedule": LIGHTX2V}, OWN,
         {"sigmas": OWN["sigmas"], "denoise": 0.8})


@pytest.mark.parametrize("changes", LISTS, ids=str)
@pytest.mark.parametrize("name", ["unipc", "lcm"])
def test_a_list_is_stopped_and_finished_later(model: Wan22Model, inputs: tuple, tmp_path: Path, whole: dict,
                                              changes: dict, name: str) -> None:
    changes = {"scheduler": name, **changes}
    latent = {"samples": whole["euler"]} if "denoise" in changes else None
    at_once = sample_latent(model, *inputs, settings(**changes), latent=latent)["samples"]
    half = sample_latent(model, *inputs, settings(**changes, stage=HIGH_ONLY), latent=latent)
    save_latent(lambda: tmp_path / "half.latent", half, {})
    kept = load_latent(tmp_path / "half.latent")
    high, low = schedule.spans(settings(**changes)).values()
    assert (kept[STEPS_DONE].done, kept[STEPS_DONE].steps) == (len(high), len(high) + len(low))
    unread = {} if changes.get("sigma_schedule") == THINNED_14 else {"num_inference_steps": 77, "shift": 2.0}
    assert torch.equal(finish(model, inputs, kept, **{**changes, **unread}), at_once)


@pytest.mark.parametrize(("begun", "goes_on", "said"), [
    (OWN, {}, r"begun with sigmas 1\.0, 0\.95, 0\.91, 0\.7, 0\.3; this sampler has ''"),
    ({}, OWN, r"begun with sigmas ''; this sampler has 1\.0, .* Set sigmas to ''\."),
    ({}, {"sigma_schedule": THINNED_14}, "begun with sigma_schedule official; this sampler has thinned 4"),
])
def test_another_list_cannot_finish_a_clip(model: Wan22Model, inputs: tuple, half_done: dict, begun: dict,
                                           goes_on: dict, said: str) -> None:
    half = sample_latent(model, *inputs, settings(**begun, stage=HIGH_ONLY)) if begun else half_done["euler"]
    with pytest.raises(RequestError, match=said):
        finish(model, inputs, half, **goes_on)


def test_a_list_that_starts_lower_changes_a_given_clip(model: Wan22Model, inputs: tuple, whole: dict) -> None:
    given = {"samples": whole["euler"]}
    by_denoise = sample_latent(model, *inputs, settings(denoise=0.6), latent=given)["samples"]
    own = settings(sigmas=tuple(schedule.sigmas_of(settings(denoise=0.6))[:-1].tolist()))
    assert torch.equal(sample_latent(model, *inputs, own, latent=given)["samples"], by_denoise)
    with pytest.raises(RequestError, match=r"sigmas begins at 0\.\d+, where a given clip is to be changed, but"):
        sample_latent(model, *inputs, own)


def test_noise_is_as_large_as_the_first_sigma(model: Wan22Model, inputs: tuple) -> None:
    """As TurboDiffusion's code begins, at 0.995, and ComfyUI's samplers from an empty latent."""
    starts: list[torch.Tensor] = []

    def wrap(velocity: Velocity, step: int, expert: str) -> Velocity:
        def seen(latents: torch.Tensor, *rest: Any) -> torch.Tensor:
            starts.append(latents)
            return velocity(latents, *rest)

        return seen

    sampling = settings(sigma_schedule=TURBO, scheduler="lcm", guidance_scale=1.0)
    first = float(schedule.sigmas_of(sampling)[0])
    samples = sample_latent(model, *inputs, sampling, Hooks(wrap=wrap))["samples"]
    assert len(starts) == 4 and torch.allclose(starts[0], first * new_noise(samples.shape, sampling.seed))


def test_lcm_draws_new_noise_in_every_step(model: Wan22Model, inputs: tuple, whole: dict) -> None:
    other = sample_latent(model, *inputs, settings(scheduler="lcm", seed=5))["samples"]
    assert (normalise(other) - normalise(whole["lcm"])).abs().mean() > 0.05
    drawn = [torch.randn(SHAPE, generator=noise_of_steps(SHAPE, 4, step)) for step in range(3)]
    g = torch.Generator().manual_seed(4)
    assert torch.equal(torch.randn(SHAPE, generator=g), new_noise(SHAPE, 4))
    assert all(torch.equal(torch.randn(SHAPE, generator=g), noise) for noise in drawn)


def test_the_second_stage_needs_the_first(model: Wan22Model, inputs: tuple) -> None:
    with pytest.raises(RequestError, match=r"stage is 'low-noise only', but no latent is connected"):
        finish(model, inputs, None)


def test_a_half_done_clip_is_no_clip_to_start_from(model: Wan22Model, inputs: tuple, half_done: dict) -> None:
    with pytest.raises(RequestError, match=r"clip of which 4 steps are done\. Set stage to 'low-noise only'"):
        sample_latent(model, *inputs, settings(denoise=0.5), latent=half_done["euler"])


def test_denoise_starts_on_the_straight_path_to_noise(model: Wan22Model, inputs: tuple, whole: dict) -> None:
    """With a velocity of noise - clip, the true one of the path, sampling must arrive at the clip it came from."""
    given, sampling = whole["euler"], settings(denoise=0.6, guidance_scale=1.0)
    starts: list[torch.Tensor] = []

    class TruePath(torch.nn.Module):
        config = model.low.model.config
        blocks = ()

        def forward(self, stacked: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, return_dict: bool,
                    ) -> tuple[torch.Tensor]:
            starts.append(stacked[:, :16])
            return (new_noise(given.shape, sampling.seed) - normalise(given),)

    resident = type(model.low.resident)(TruePath(), torch.device("cpu"))
    expert = replace(model.low, name="true path", resident=resident)
    found = sample_latent(Wan22Model(expert, expert), *inputs, sampling, latent={"samples": given})["samples"]
    torch.testing.assert_close(found, given, atol=1e-4, rtol=0)
    sigma = float(schedule.sigma_table(16, 5.0)[6])
    torch.testing.assert_close(starts[0], sigma * new_noise(given.shape, 4) + (1 - sigma) * normalise(given))
    assert len(starts) == STEPS


def test_at_denoise_1_nothing_is_left_of_a_latent(model: Wan22Model, inputs: tuple, whole: dict) -> None:
    latent = {"samples": torch.ones_like(whole["euler"])}
    assert torch.equal(sample_latent(model, *inputs, settings(), latent=latent)["samples"], whole["euler"])


@pytest.mark.parametrize(("latent", "said"), [
    (None, r"denoise is 0\.5, which changes a given clip, but no latent is connected"),
    ({"samples": torch.zeros(1, 16, 3, 4, 4)}, r"shape \(1, 16, 3, 4, 4\); the clip of this first_frame has"),
    ({"samples": torch.zeros(1, 16, 2, 4, 4), "noise_mask": torch.ones(1)}, "has a noise mask"),
])
def test_latents_that_cannot_be_changed(model: Wan22Model, inputs: tuple, latent: dict | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        sample_latent(model, *inputs, settings(denoise=0.5), latent=latent)


def test_what_a_hook_starts_needs_no_latent(model: Wan22Model, inputs: tuple) -> None:
    def start(noise: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, int]:
        return noise * sigmas[0], 0

    low = replace(settings(), sigmas=(0.8, 0.4))
    sample_latent(model, *inputs, low, Hooks(start=start))
    with pytest.raises(RequestError, match=r"sigmas begins at 0\.8"):
        sample_latent(model, *inputs, low)
    with pytest.raises(RequestError, match="Set denoise to 1"):
        sample_latent(model, *inputs, settings(denoise=0.5), Hooks(start=start))


def test_the_second_stage_of_lcm_needs_the_seed_of_the_first(model: Wan22Model, inputs: tuple) -> None:
    half = sample_latent(model, *inputs, settings(scheduler="lcm", stage=HIGH_ONLY))
    with pytest.raises(RequestError, match="begun with seed"):
        sample_latent(model, *inputs, replace(settings(scheduler="lcm", stage=LOW_ONLY), seed=99), latent=half)


# ---- the file ---------------------------------------------------------------------------------------------------


def test_a_finished_latent_survives_the_file(tmp_path: Path, whole: dict) -> None:
    save_latent(lambda: tmp_path / "whole.latent", {"samples": whole["euler"]}, {})
    loaded = load_latent(tmp_path / "whole.latent")
    assert list(loaded) == ["samples"] and torch.equal(loaded["samples"], whole["euler"])


def test_the_file_is_one_that_core_reads(tmp_path: Path, half_done: dict) -> None:
    save_latent(lambda: tmp_path / "half.latent", half_done["unipc"], {})
    tensors = load_file(tmp_path / "half.latent")
    assert torch.equal(tensors["latent_tensor"], half_done["unipc"]["samples"])
    assert "latent_format_version_0" in tensors, "core would scale the latents without it"


def test_files_that_are_no_latents(tmp_path: Path) -> None:
    (tmp_path / "text.latent").write_text("not a latent")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.latent")
    with pytest.raises(RequestError, match=r"text\.latent is no latent file or is damaged"):
        load_latent(tmp_path / "text.latent")
    with pytest.raises(RequestError, match=r"other\.latent holds no latent of ComfyUI's"):
        load_latent(tmp_path / "other.latent")


@pytest.mark.parametrize("metadata", [None, {"wan22.step": "4"}, {"wan22.step": "4", "wan22.schedule": "{"}])
def test_a_half_done_clip_without_its_state(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    """Another program's copy of the file may have dropped the metadata."""
    tensors = {"latent_tensor": torch.zeros(1, 16, 2, 4, 4), "latent_format_version_0": torch.tensor([]),
               "wan22.latents": torch.zeros(1, 16, 2, 4, 4)}
    save_file(tensors, tmp_path / "copy.latent", metadata)
    with pytest.raises(RequestError, match=r"copy\.latent is a clip between two steps .* Save it again"):
        load_latent(tmp_path / "copy.latent")


SHAPE = (1, 16, 2, 4, 4)
STATE = Unfinished(torch.zeros(SHAPE), 4, {"model_outputs.1": torch.zeros(SHAPE), "lower_order_nums": torch.tensor(1)},
                   schedule_of(Sampling(seed=0, scheduler="dpmpp_2m")))


@pytest.mark.parametrize("state", [
    replace(STATE, schedule={"shift": 5.0}), replace(STATE, schedule=STATE.schedule | {"shift": [5.0]}),
    *(replace(STATE, schedule=STATE.schedule | odd) for odd in (
        {"sigmas": "1, half"}, {"sigmas": 1.0}, {"sigma_schedule": "karras"}, {"num_inference_steps": 10**9},
        {"num_inference_steps": 10.5}, {"shift": float("nan")}, {"seed": "3"}, {"seed": -1},
        {"strength": 3})),
    replace(STATE, schedule=STATE.schedule | {"scheduler": "euler"}), replace(STATE, history={}),
    replace(STATE, schedule=[]), replace(STATE, step="4"),
    *(replace(STATE, history=STATE.history | odd) for odd in (
        {"model_outputs.7": torch.zeros(SHAPE)}, {"model_outputs.x": torch.zeros(SHAPE)}, {"step": torch.zeros(SHAPE)},
        {"lower_order_nums": torch.tensor(2)}, {"lower_order_nums": torch.zeros(2)}, {"last_sample": torch.zeros(3)})),
])
def test_a_half_done_clip_with_an_odd_state(tmp_path: Path, state: Unfinished) -> None:
    """Of another version, or damaged: it is told here, and not in the middle of sampling."""
    good, odd = tmp_path / "good.latent", tmp_path / "odd.latent"
    save_latent(lambda: good, {"samples": torch.zeros(SHAPE), UNFINISHED: STATE}, {})
    save_latent(lambda: odd, {"samples": torch.zeros(SHAPE), UNFINISHED: state}, {})
    assert load_latent(good)[UNFINISHED].schedule == STATE.schedule
    with pytest.raises(RequestError, match=r"odd\.latent is .* damaged, or of another version.* Save it again"):
        load_latent(odd)


def test_a_half_done_clip_that_a_node_made_larger(model: Wan22Model, loaded: tuple, inputs: tuple, half_done: dict,
                                                  tmp_path: Path) -> None:
    """As core's Latent Upscale does, which hands on the rest of the LATENT: the state is of the clip before."""
    larger = half_done["euler"] | {"samples": half_done["euler"]["samples"].repeat(1, 1, 1, 2, 2)}
    image = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(3))
    of_its_size = *inputs[:2], encode_first_frame(loaded[2], image, 2 * SIDE, 2 * SIDE, FRAMES)
    save_latent(lambda: tmp_path / "larger.latent", larger, {})
    kept = load_latent(tmp_path / "larger.latent")
    assert kept.keys() == {"samples"} and torch.equal(kept["samples"], larger["samples"])
    assert torch.equal(finish(model, of_its_size, kept), finish(model, of_its_size, larger))


@pytest.mark.parametrize("way", ["as it is", "through a file", "of the bridge"])
def test_a_half_done_clip_does_not_decode_to_grain(loaded: tuple, inputs: tuple, half_done: dict, tmp_path: Path,
                                                   way: str) -> None:
    half = half_done["euler"]
    if way == "of the bridge":
        half = sample_stages(lambda stage: (stage.noise, stage.noise), *inputs, settings(stage=HIGH_ONLY))
    if way != "as it is":
        save_latent(lambda: tmp_path / "half.latent", half, {})
        half = load_latent(tmp_path / "half.latent")
    said = r"4 of 10 steps are done; it would decode to noise\. Finish it first: .*'low-noise only'"
    cast = half | {"samples": half["samples"].half()}  # as nodes for half-precision latents hand it on
    for decode in (lambda: decode_frames(loaded[2], half, lambda done, total: None), lambda: count_frames(half),
                   lambda: count_frames(cast)):
        with pytest.raises(RequestError, match=said):
            decode()
    with pytest.raises(RequestError, match="4 steps are done"):
        sample_latent(loaded[0], *inputs, settings(denoise=0.5), latent=half)
    # core's KSampler (Advanced) finishes it and hands every other key on
    finished = half | {"samples": half["samples"] * 0.5, "noise_mask": None}
    assert count_frames(finished) == FRAMES
    sample_latent(loaded[0], *inputs, settings(denoise=0.5), latent=finished)


def test_a_file_that_cannot_be_written(tmp_path: Path, half_done: dict) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match=r"could not be written.*still in the graph"):
        save_latent(lambda: tmp_path / "taken" / "half.latent", half_done["euler"], {})
