"""Attention overrides of other nodes work on our experts: called as ComfyUI's own Wan model calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.models import load as bundled
from pipeline.models.condition import Condition, known_ends
from pipeline.models.load import Wan22Model
from pipeline.request import HIGH, LOW, RequestError, Sampling
from pipeline.sampling.bridge import sample_stages
from pipeline.sampling.sampler import sample
from tests.support.comfy_in_process import comfy_host, import_comfyui

STEPS = 4
TOLD = ("block_index", "block_type", "total_blocks", "grid_sizes", "cond_or_uncond")
Clip = tuple[list, Condition]


class Recorder:
    """An override that notes what it is told, and calls the attention."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, attention: Callable[..., torch.Tensor], *args: Any, **options: Any) -> torch.Tensor:
        told = options["transformer_options"]
        step = int((told["sample_sigmas"] - told["sigmas"]).abs().argmin())
        assert told["sample_sigmas"][step] == pytest.approx(told["sigmas"].item(), abs=1e-5)
        shapes = [tuple(tensor.shape) for tensor in args[:3]]
        heads = options["heads"] if "heads" in options else args[3]
        self.calls.append((step, shapes, heads, *[told[name] for name in TOLD]))
        return attention(*args, **options)


@pytest.fixture(scope="module")
def core() -> dict[str, Any]:
    """The bundled experts as ComfyUI's MODELs."""
    import_comfyui()
    import comfy.sd

    return {name: comfy.sd.load_diffusion_model(str(file))
            for name, file in ((HIGH, bundled.DEMO_HIGH), (LOW, bundled.DEMO_LOW))}


@pytest.fixture(scope="module")
def ours() -> Wan22Model:
    return bundled.load(comfy_host())[0]


@pytest.fixture(scope="module")
def clip(ours: Wan22Model) -> Clip:
    g = torch.Generator().manual_seed(0)
    return ([[torch.randn(1, 512, ours.high.text_dim, generator=g), {}]],
            known_ends(torch.randn(1, 16, 2, 8, 12, generator=g)))


def with_override(model: Any, override: Callable[..., Any]) -> Any:
    """A MODEL as nodes that change its attention make it."""
    changed = model.clone()
    changed.model_options["transformer_options"]["optimized_attention_override"] = override
    return changed


def test_an_override_is_told_what_it_is_told_by_comfyui(core: dict[str, Any], ours: Wan22Model, clip: Clip) -> None:
    from pipeline.host.attention import AUTOMATIC, model_with_attention
    from pipeline.host.sampling import stage_runner

    text, condition = clip
    theirs, mine = Recorder(), Recorder()
    sampling = Sampling(0, num_inference_steps=STEPS, guidance_scale=1.0)
    run = stage_runner({name: with_override(model, theirs) for name, model in core.items()}, sampling)
    wanted = sample_stages(run, text, text, condition, sampling)["samples"]
    changed = model_with_attention(ours, AUTOMATIC, with_override(core[HIGH], mine))
    found = sample(changed, text, text, condition, sampling)
    assert [call[1:] for call in mine.calls] == [call[1:] for call in theirs.calls]
    assert len(mine.calls) == STEPS * len(ours.high.model.blocks) * 2
    assert ((found - wanted).abs().max() / wanted.std()).item() < 1e-3
    assert torch.equal(sample(ours, text, text, condition, sampling),
                       sample(model_with_attention(changed, AUTOMATIC), text, text, condition, sampling))
    assert len(mine.calls) == len(theirs.calls), "the model without it does not call it"


@pytest.mark.parametrize(("batched", "texts"), [(False, [[0], [1]]), (True, [[0, 1]])])
def test_an_override_knows_the_texts_of_a_pass(batched: bool, texts: list[list[int]], core: dict[str, Any],
                                               ours: Wan22Model, clip: Clip) -> None:
    from pipeline.host.attention import model_with_attention

    recorder = Recorder()
    changed = model_with_attention(ours, "sub_quad", with_override(core[HIGH], recorder))
    text, condition = clip
    sample(changed, text, text, condition, Sampling(0, num_inference_steps=STEPS, batched_guidance=batched))
    calls = 2 * len(ours.high.model.blocks)
    assert [call[-1] for call in recorder.calls] == [which for _ in range(STEPS) for which in texts
                                                     for _ in range(calls)]
    assert [call[0] for call in recorder.calls] == [step for step in range(STEPS) for _ in range(calls * len(texts))]


@pytest.mark.parametrize("name", ["split", "sub_quad", "pytorch"])
def test_an_attention_of_the_registry_gives_the_same_clip(name: str, ours: Wan22Model, clip: Clip) -> None:
    from pipeline.host.attention import attention_names, model_with_attention

    assert name in attention_names()
    text, condition = clip
    sampling = Sampling(0, num_inference_steps=STEPS)
    wanted = sample(ours, text, text, condition, sampling)
    found = sample(model_with_attention(ours, name), text, text, condition, sampling)
    assert ((found - wanted).abs().max() / wanted.std()).item() < 1e-3


def test_what_cannot_be_had_is_refused(core: dict[str, Any], ours: Wan22Model) -> None:
    from pipeline.host.attention import AUTOMATIC, model_with_attention

    with pytest.raises(RequestError, match=r"attention is 'sage9', which this ComfyUI does not have.*sub_quad"):
        model_with_attention(ours, "sage9")
    with pytest.raises(RequestError, match="override_from has no attention override"):
        model_with_attention(ours, AUTOMATIC, core[HIGH])
