"""LoRAs that act in some of the steps, or fade: the scales, the clips, and who refuses them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.lora.apply import use_loras
from pipeline.lora.bundled import bundled_lora
from pipeline.lora.schedule import describe_schedules, lora_hooks, scale_at
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.remote.errors import RemoteError
from pipeline.remote.plan import plan_clip
from pipeline.remote.providers import PROVIDERS
from pipeline.request import HIGH, HIGH_ONLY, LOW, LOW_ONLY, ClipRequest, Lora, LoraSchedule, RequestError, Sampling
from pipeline.sampling.bridge import check_hooks
from pipeline.sampling.hooks import Hooks
from pipeline.sampling.sampler import sample_latent
from pipeline.sampling.schedule import spans
from tests.support.lora_files import DRAIN

STEPS = 6
SAMPLING = Sampling(seed=3, num_inference_steps=STEPS, guidance_scale=1.0)
PAIR = tuple(Lora(DRAIN[half].name, 1.0, half) for half in (HIGH, LOW))


@pytest.mark.parametrize("schedule, wanted", [
    (LoraSchedule(), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    (LoraSchedule(end_percent=0.3), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]),
    (LoraSchedule(start_percent=0.46), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]),
    (LoraSchedule(fade_in=1.0), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
    (LoraSchedule(fade_out=0.4), [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
    (LoraSchedule(0.2, 0.8, 0.5, 0.5), [0, 0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3, 0, 0]),
])
def test_scales_by_step(schedule: LoraSchedule, wanted: list[float]) -> None:
    schedule.check()
    lora = Lora("a", -0.5, schedule=schedule)
    assert [scale_at(lora, step, 10) for step in range(10)] == pytest.approx([-0.5 * share for share in wanted])


@pytest.fixture(scope="module")
def loaded() -> tuple:
    return bundled.load(plain_host())


@pytest.fixture(scope="module")
def clip_of(loaded: tuple) -> Callable[..., dict]:
    """Sample 64x64 pixels and 9 frames with LoRAs on the bundled experts."""
    model, encoder, vae = loaded
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    inputs = (*encode_prompts(encoder, "nothing moves", ""), encode_first_frame(vae, image, 64, 64, 9))

    def run(schedule: LoraSchedule | Callable[..., float], sampling: Sampling = SAMPLING, latent: dict | None = None,
            ) -> dict:
        own = isinstance(schedule, LoraSchedule)
        loras = tuple(replace(lora, schedule=schedule) for lora in PAIR) if own else PAIR
        hooks = lora_hooks(loras, SAMPLING) if own else Hooks(lora_scale=schedule)
        changed, _ = use_loras(model, loras, bundled_lora, None, lambda: None)
        return sample_latent(changed, *inputs, sampling, hooks, latent)

    return run


def test_the_clip_follows_the_steps(clip_of: Callable[..., dict], loaded: tuple) -> None:
    """As by a hook of one's own, and to the same bits in two runs, one an expert."""
    assert len(spans(SAMPLING)[HIGH]) == 3
    fading = LoraSchedule(0.15, 0.85, 0.5, 0.0)
    found = clip_of(fading)["samples"]
    wanted = clip_of(lambda step, lora: [0.0, 0.5, 1.0, 1.0, 1.0, 0.0][step])["samples"]
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, clip_of(LoraSchedule())["samples"], atol=0.01)
    half = clip_of(fading, replace(SAMPLING, stage=HIGH_ONLY))
    assert torch.equal(clip_of(fading, replace(SAMPLING, stage=LOW_ONLY), half)["samples"], found)
    layers = [layer for expert in loaded[0].experts.values() for layer in expert.model.modules()
              if hasattr(layer, "beside")]
    assert len(layers) > 100 and all(layer.beside is None for layer in layers), "a LoRA takes memory after the run"


def test_the_node_says_in_which_steps(loaded: tuple) -> None:
    model, _, _ = loaded
    loras = tuple(replace(lora, schedule=LoraSchedule(0.5, 1.0, 0.5)) for lora in PAIR)
    changed, _ = use_loras(model, loras, bundled_lora, None, lambda: None)
    high, low = describe_schedules(changed.experts, SAMPLING)
    assert high == f"{PAIR[0].source}, high-noise expert: in none of its steps, for it acts in steps 4-6 of 6."
    assert low == f"{PAIR[1].source}, low-noise expert: in steps 4-6 of 6, scale 0.67 to 1."
    same, _ = use_loras(model, PAIR, bundled_lora, None, lambda: None)
    assert describe_schedules(same.experts, SAMPLING) == [] and lora_hooks(PAIR, SAMPLING) == Hooks()


@pytest.mark.parametrize("schedule, said", [
    (LoraSchedule(0.5, 0.5), "start_percent 0.5 to end_percent 0.5; choose 0 to 1, the start below the end"),
    (LoraSchedule(0.0, 1.5), "end_percent 1.5"), (LoraSchedule(float("nan")), "start_percent nan"),
    (LoraSchedule(fade_in=0.6, fade_out=0.5), "fade_in is 0.6 and its fade_out 0.5.*both together"),
    (LoraSchedule(fade_in=-0.1), "fade_in is -0.1"), (LoraSchedule(fade_out=float("nan")), "fade_out nan"),
])
def test_values_out_of_range(schedule: LoraSchedule, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Lora("a", schedule=schedule).check()


def test_no_step_is_an_error() -> None:
    lora = Lora("https://a.example/b.safetensors?key=hidden", schedule=LoraSchedule(0.98))
    with pytest.raises(RequestError, match=r"LoRA b.safetensors acts from 98.0% to 100.0% of 20 steps, which is no st"):
        lora_hooks([lora], replace(SAMPLING, num_inference_steps=20))
    lora_hooks([replace(lora, scale=0.0)], SAMPLING)


def test_who_cannot_follow_the_steps_refuses() -> None:
    loras = (Lora("https://a.example/b.safetensors", schedule=LoraSchedule(fade_out=0.5)),)
    for provider in PROVIDERS.values():
        if not provider.own_server:
            with pytest.raises(RemoteError, match=r"hosted models keep a LoRA at one scale.*fade_out to 0.*Nothing"):
                plan_clip(provider.models[0], ClipRequest("pan", loras=loras), "trim")
    with pytest.raises(RequestError, match=r"LoRA on a MODEL keeps its scale in every step.*use Wan 2\.2 Sampler"):
        check_hooks(lora_hooks(loras, SAMPLING), SAMPLING)
