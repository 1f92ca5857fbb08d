"""A CONDITIONING is taken whole or refused: nothing of it that would change the clip is left out in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.models.condition import known_ends
from pipeline.request import RequestError, Sampling
from pipeline.sampling.bridge import check_models, sample_stages
from pipeline.sampling.conditioning import text_embeddings
from tests.support.comfy_in_process import import_comfyui

DIM = 8
TEXT = torch.cat([torch.ones(1, 20, DIM), torch.zeros(1, 492, DIM)], 1)


def conditioning(embeddings: torch.Tensor = TEXT, **options: Any) -> list[list[Any]]:
    return [[embeddings, {"pooled_output": None, **options}]]


def test_text_is_cut_or_filled_to_512_tokens() -> None:
    for padded in (TEXT[:, :20], TEXT, torch.cat([TEXT, torch.zeros(1, 88, DIM)], 1)):
        assert torch.equal(text_embeddings(conditioning(padded), DIM, "positive"), TEXT)


def test_embeddings_of_every_encoder_are_of_one_dtype() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        found = text_embeddings(conditioning(TEXT.to(dtype)), DIM, "positive")
        assert found.dtype == torch.float32 and torch.equal(found, TEXT)


@pytest.mark.parametrize("options", [
    {"strength": 1.0}, {"start_percent": 0.0, "end_percent": 1.0}, {"clip_start_percent": 0.0},
    {"attention_mask": torch.ones(1, 512)}, {"guidance": 3.5}, {"hooks": None}, {"set_area_to_bounds": False},
])
def test_options_without_effect_are_taken(options: dict[str, Any]) -> None:
    assert torch.equal(text_embeddings(conditioning(**options), DIM, "positive"), TEXT)


@pytest.mark.parametrize("options", [
    {"strength": 0.5}, {"start_percent": 0.3, "end_percent": 1.0}, {"end_percent": 0.7}, {"mask": torch.ones(1, 4, 4)},
    {"area": (8, 8, 0, 0), "strength": 1.0}, {"control": object()}, {"gligen": ("position",)}, {"hooks": object()},
    {"reference_latents": [torch.zeros(1, 16, 1, 4, 4)]}, {"clip_vision_output": object()},
    {"unclip_conditioning": [1]},
    {"model_conds": {"c": 1}}, {"some_option_of_tomorrow": 1}, {"clip_start_percent": 0.5},
    {"add_dict": {"a": 1}}, {"default": True}, {"time_dim_concat": torch.zeros(1, 16, 1, 4, 4)},
])
def test_options_that_would_change_the_clip_are_refused_by_name(options: dict[str, Any]) -> None:
    import_comfyui()
    from node_helpers import conditioning_set_values

    changed = conditioning_set_values(conditioning(), options)
    named = [name for name in options if name not in ("strength",) or options[name] != 1.0]
    with pytest.raises(RequestError, match=rf"positive conditioning brings .*{named[0]}.*bridge"):
        text_embeddings(changed, DIM, "positive")


def test_a_second_prompt_behind_the_first_is_refused() -> None:
    """As core's Conditioning (Concat) puts it; what Conditioning (Combine) gives has two parts."""
    with pytest.raises(RequestError, match=r"behind its first 512 tokens.*Concat.*Write one prompt"):
        text_embeddings(conditioning(torch.cat([TEXT, TEXT], 1)), DIM, "negative")
    with pytest.raises(RequestError, match="has 2 parts; this sampler takes one"):
        text_embeddings(conditioning() * 2, DIM, "positive")
    with pytest.raises(RequestError, match=r"shape \(2, 512, 8\)"):
        text_embeddings(conditioning(TEXT.expand(2, -1, -1)), DIM, "positive")


def test_a_picture_of_the_conditioning_is_refused_by_both_samplers() -> None:
    ours = conditioning(concat_latent_image=torch.zeros(1, 16, 2, 4, 4), concat_mask=torch.ones(1, 1, 2, 4, 4))
    said = "brings a picture of its own, as WanImageToVideo puts it in"
    with pytest.raises(RequestError, match=said):
        text_embeddings(ours, DIM, "positive")
    with pytest.raises(RequestError, match=said):
        check_models({}, ours, conditioning())


def test_the_bridge_hands_every_option_on() -> None:
    """ComfyUI's own sampling reads them."""
    seen: list[dict[str, Any]] = []

    def run(stage: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(stage.positive[0][1])
        return stage.latents, stage.latents

    given = conditioning(strength=0.5, start_percent=0.3)
    sample_stages(run, given, conditioning(), known_ends(torch.zeros(1, 16, 2, 4, 4)), Sampling(0))
    assert all((options["strength"], options["start_percent"]) == (0.5, 0.3) for options in seen) and len(seen) == 2
