"""Keys of segments: what changes the frames changes the key, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.long_clip.keys import fingerprint_of_module, names_of_function
from pipeline.long_clip.make import LongClip
from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.models.load import Wan22Model
from pipeline.models.umt5 import load_text_encoder
from pipeline.video.encoding import Encoding
from tests.long_clip.conftest import Maker
from tests.support.umt5_layouts import gguf_file


def fingerprint_of_encoder(path: Path) -> str:
    return fingerprint_of_module(load_text_encoder(path, plain_host())[0].module)


def test_text_encoders_are_told_apart_by_their_matrices(tmp_path: Path) -> None:
    weights = load_file(bundled.DEMO_TEXT_ENCODER)
    name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
    save_file({**weights, name: weights[name] * 0.5}, tmp_path / "edited.safetensors")
    save_file(weights, tmp_path / "copy.safetensors")
    for kind in ("Q4_0", "Q8_0"):
        gguf_file(kind)(weights, tmp_path / f"{kind}.gguf")
    found = [fingerprint_of_encoder(path) for path in (
        bundled.DEMO_TEXT_ENCODER, tmp_path / "edited.safetensors", tmp_path / "Q4_0.gguf", tmp_path / "Q8_0.gguf")]
    assert len(set(found)) == 4
    assert fingerprint_of_encoder(tmp_path / "copy.safetensors") == found[0]


def sage(query: torch.Tensor, *_: Any) -> torch.Tensor:
    return query


def sparse(query: torch.Tensor, *_: Any) -> torch.Tensor:
    return query


def wrapped(function: Any, mode: str = "") -> Any:
    def attend(*args: Any) -> Any:
        return function(*args, mode)

    return attend


@pytest.mark.parametrize("attend", [sage, wrapped(sage), wrapped(sparse), wrapped(sage, "fp8"), partial(sage, "fp8")])
def test_attentions_are_told_apart(loaded: tuple, clip: LongClip, tmp_path: Path, attend: Any) -> None:
    def keys(with_attention: Any) -> list[str]:
        model = Wan22Model(*(replace(one, attend=with_attention) for one in loaded[0].experts.values()))
        prepared = Maker((model, *loaded[1:]), tmp_path).prepared(clip, lambda: None, Encoding())
        return [one.latents for one in prepared.keys]

    others = [None, sparse, wrapped(sage, "fp16")]
    assert all(one not in keys(other) for one in keys(attend) for other in others)
    assert names_of_function(wrapped(sage, "fp8")) == names_of_function(wrapped(sage, "fp8"))


def test_functions_that_hold_themselves_and_objects_are_named() -> None:
    calls = 0

    def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return counted(*args) if args else calls

    name = names_of_function(counted)
    calls = 7
    assert names_of_function(counted) == name and len(name) < 20
    assert names_of_function(torch.nn.Identity()) == ["torch.nn.modules.linear.Identity"]
    assert names_of_function(None) == [""]
