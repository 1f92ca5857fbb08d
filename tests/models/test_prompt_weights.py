"""Weights in a prompt mean to our encoder what they mean to ComfyUI's: same tokens, same weights, same embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.models.prompt_weights import weighted_parts
from pipeline.models.text_encoder import TextEncoder
from pipeline.models.umt5 import load_text_encoder
from pipeline.request import RequestError
from tests.support.comfy_in_process import comfy_host

PROMPTS = (
    "", "the camera pans left", "the (camera:1.4) pans left", "(the ball) moves ((up)) (slowly:0.3)",
    "everything (turns (red:1.5) or:0.8) (blue:-1)", "a smile :) and (another", "a) b( c)", "\\(not a weight:2\\) left",
    "(ratio 16:9)", "(a:b)", "()", "(:1.5)", "(left:1.0)", "(left: 1.25 )", "((a:1.2)(b))c", "(x:1e-1)",
    "(\\(x\\):1.3)", "Ein (Ballon über:1.2) \u6771\u4eac", "))((", "(a:1.3", "left:1.3)",
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(bundled.DEMO_TEXT_ENCODER)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(*load_text_encoder(bundled.DEMO_TEXT_ENCODER, plain_host()))


@pytest.fixture(scope="module")
def core_tokenizer(weights: dict[str, torch.Tensor]) -> Any:
    comfy_host()
    from comfy.text_encoders.wan import WanT5Tokenizer

    return WanT5Tokenizer(tokenizer_data={"spiece_model": weights["spiece_model"]})


@pytest.fixture(scope="module")
def core_encoder(weights: dict[str, torch.Tensor], encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory,
                 ) -> Any:
    """ComfyUI's UMT5 in the bundled model's sizes."""
    comfy_host()
    import comfy.text_encoders.t5
    import comfy.text_encoders.wan
    from comfy import sd1_clip

    xxl = Path(comfy.text_encoders.wan.__file__).with_name("umt5_config_xxl.json")
    small = encoder.resident.module.config
    config = json.loads(xxl.read_text("utf-8")) | {name: getattr(small, name) for name in (
        "d_model", "d_ff", "d_kv", "num_layers", "num_heads", "vocab_size")}
    path = tmp_path_factory.mktemp("core") / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    model = sd1_clip.SDClipModel(textmodel_json_config=str(path), special_tokens={"end": 1, "pad": 0}, layer="last",
                                 model_class=comfy.text_encoders.t5.T5, enable_attention_masks=True,
                                 zero_out_masked=True, dtype=torch.float32)
    model.load_sd({name: weight.float() for name, weight in weights.items() if name != "spiece_model"})
    return model


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_are_those_of_comfyui(prompt: str, encoder: TextEncoder, core_tokenizer: Any) -> None:
    wanted = core_tokenizer.tokenize_with_weights(prompt)["umt5xxl"]
    assert encoder.tokenize(prompt)["umt5xxl"] == wanted


@torch.no_grad()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_embeddings_are_those_of_comfyui(prompt: str, encoder: TextEncoder, core_encoder: Any) -> None:
    tokens = encoder.tokenize(prompt)
    wanted = core_encoder.encode_token_weights(tokens["umt5xxl"])[0]
    found = encoder.encode_from_tokens_scheduled(tokens)[0][0]
    torch.testing.assert_close(found, wanted.float().cpu(), atol=2e-4, rtol=2e-4)


def test_a_weight_changes_its_words_alone(encoder: TextEncoder) -> None:
    plain, strong = (encoder.encode_from_tokens_scheduled(encoder.tokenize(text))[0][0][0]
                     for text in ("the camera pans left", "the camera pans (left:1.5)"))
    changed = (plain - strong).abs().amax(-1) > 1e-4
    count = len(encoder.tokenizer.encode("the camera pans"))
    assert changed.any() and not changed[:count].any()
    assert torch.allclose(strong[changed], plain[changed] * 1.5, atol=1e-4)


@pytest.mark.parametrize(("prompt", "message"), [("(x:inf)", "has the weight inf"), ("(x:nan)", "has the weight nan"),
                                                 ("(" * 200 + "x" + ")" * 200, "more than 100 deep")])
def test_weights_that_cannot_be_used(prompt: str, message: str, encoder: TextEncoder) -> None:
    with pytest.raises(RequestError, match=message):
        encoder.tokenize(prompt)


def test_parts() -> None:
    assert weighted_parts("a (b:2) \\(c\\)") == [("a ", 1.0), ("b", 2.0), (" (c)", 1.0)]
