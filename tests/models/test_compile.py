"""Compiled blocks give the same clip, and one compiled code serves both experts, every step, seed, LoRA and weight."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from safetensors.torch import load_file

from pipeline.lora.apply import apply_loras
from pipeline.models import compile as compiling
from pipeline.models import load as bundled
from pipeline.models.condition import known_ends
from pipeline.models.expert import load_expert
from pipeline.models.load import Wan22Model
from pipeline.request import RequestError, Sampling
from pipeline.sampling.hooks import observe
from pipeline.sampling.sampler import sample
from tests.support import layouts
from tests.support.comfy_in_process import comfy_host
from tests.support.lora_files import DRAIN, opened

TOLERANCE = 1e-3
"""Of the largest difference, in standard deviations of the clip."""


pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    """PyTorch compiles in processes of its own else, which take seconds to start."""
    with torch._inductor.config.patch(compile_threads=1):
        yield


@pytest.fixture(scope="module")
def usual() -> Wan22Model:
    return bundled.load(comfy_host())[0]


@pytest.fixture(scope="module")
def compiled() -> Wan22Model:
    return bundled.load(comfy_host(), compiled=True)[0]


def compilations() -> int:
    """Return how many of all functions that ran have been looked at in order to compile them."""
    return sum(torch._dynamo.utils.counters["frames"].values())


def clip(model: Wan22Model, seed: int = 0, counts: list[int] | None = None, **options: Any) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    positive, negative = ([[torch.randn(1, 512, model.high.text_dim, generator=g), {}]] for _ in range(2))
    condition = known_ends(torch.randn(1, 16, 2, 8, 12, generator=g))
    hooks = observe(after_step=lambda step, clean: None if counts is None else counts.append(compilations()))
    return sample(model, positive, negative, condition, Sampling(seed, num_inference_steps=4, **options), hooks)


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.std()).item()


@pytest.fixture(scope="module")
def counts(usual: Wan22Model, compiled: Wan22Model) -> list[int]:
    """Compilations after each step of two clips."""
    counts: list[int] = []
    assert apart(clip(compiled, 0, counts), clip(usual, 0)) < TOLERANCE
    assert apart(clip(compiled, 1, counts), clip(usual, 1)) < TOLERANCE
    return counts


def test_the_first_step_compiles_for_both_experts_and_later_clips(counts: list[int]) -> None:
    assert len(counts) == 8
    assert counts[0] > 0 and set(counts) == {counts[0]}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 5


def test_loras_run_in_the_same_code(counts: list[int], usual: Wan22Model, compiled: Wan22Model) -> None:
    before, plain = compilations(), clip(usual)
    path = DRAIN["high"]
    file = opened(path, expert="both")
    changed, same = (clip(apply_loras(model, [file])[0]) for model in (compiled, usual))
    assert apart(changed, same) < TOLERANCE < apart(changed, plain)
    assert apart(clip(compiled), plain) < TOLERANCE
    assert compilations() == before


@pytest.mark.parametrize(("name", "write"), [("fp8.safetensors", layouts.fp8_comfy(torch.float8_e4m3fn)),
                                             ("Q4_0.gguf", layouts.gguf_file("Q4_0"))])
def test_quantised_weights_run_in_the_same_code(name: str, write: Any, counts: list[int], tmp_path: Path) -> None:
    before = compilations()
    write(load_file(bundled.DEMO_HIGH), tmp_path / name)
    usual, compiled = (load_expert(tmp_path / name, comfy_host()) for _ in range(2))
    compiling.compile_blocks(compiled.model)
    assert apart(clip(Wan22Model(compiled, compiled)), clip(Wan22Model(usual, usual))) < TOLERANCE
    assert compilations() == before


def test_another_attention_is_called_from_compiled_blocks(compiled: Wan22Model, usual: Wan22Model) -> None:
    calls: list[int] = []

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: Any,
               options: dict[str, Any]) -> torch.Tensor:
        calls.append(options["block_index"])
        parts = (tensor.unflatten(2, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)

    changed = Wan22Model(*(replace(expert, attend=attend) for expert in compiled.experts.values()))
    assert apart(clip(changed, guidance_scale=1.0), clip(usual, guidance_scale=1.0)) < TOLERANCE
    assert calls == 4 * [block for block in range(len(usual.high.model.blocks)) for _ in range(2)]


def test_a_compiled_model_that_is_no_longer_used_is_gone_at_once() -> None:
    """Not only when Python next looks for circles of references: its weights are many GB."""
    model = bundled.load(comfy_host(), compiled=True)[0]
    block = weakref.ref(model.high.model.blocks[0])
    gc.disable()
    try:
        del model
        assert block() is None
    finally:
        gc.enable()


def test_a_machine_without_a_compiler_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(compiling, "_fault", compiling._fault.__wrapped__)
    said = r"compile is on, but nothing can be compiled for this machine's CPU: .*No working C\+\+ compiler found.*" \
           r"Install a C\+\+ compiler \(.*\), or switch compile off\."
    with pytest.raises(RequestError, match=said):
        bundled.load(comfy_host(), compiled=True)
