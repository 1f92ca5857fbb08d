"""LoRAs on MODELs of ComfyUI's own loader, as the bridge puts them there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.lora.apply import use_loras
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.load import Wan22Model
from pipeline.request import HIGH, LOW, Lora
from tests.support import lora_files
from tests.support.comfy_in_process import comfy_host, import_comfyui
from tests.support.lora_files import DRAIN

PAIR = {noise: path.name for noise, path in DRAIN.items()}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The bundled experts as ComfyUI loads them."""
    import_comfyui()
    import comfy.sd

    return {HIGH: comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH)),
            LOW: comfy.sd.load_diffusion_model(str(bundled.DEMO_LOW))}


def given(text_dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return (torch.randn(1, 36, 3, 12, 8, generator=g), torch.tensor([500.0]),
            torch.randn(1, 512, text_dim, generator=g))


@torch.inference_mode()
def core_velocity(model: Any) -> torch.Tensor:
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    noisy, t, text = given(model.model.diffusion_model.text_dim)
    return model.model.diffusion_model(noisy, t, context=text).float()


@torch.inference_mode()
def our_velocity(expert: Expert) -> torch.Tensor:
    expert.resident.load_to_device(0, expert.patches)
    return expert.model(*given(expert.text_dim), return_dict=False)[0].float()


def query(model: Any) -> torch.Tensor:
    return model.model.diffusion_model.blocks[0].self_attn.q.weight


def test_the_same_loras_again_change_no_weight(models: dict[str, Any]) -> None:
    """ComfyUI works every weight out anew for a MODEL whose patches it does not know."""
    from pipeline.host.loras import models_with_loras

    pair = (Lora(PAIR["high"], 1.0, "high"), Lora(PAIR["low"], 1.0, "low"))
    before = core_velocity(models[HIGH])
    first, report = models_with_loras(models, pair, None)
    assert all("150 of 150 keys; alpha 8 from its tensors" in line for line in report)
    with_pair = core_velocity(first[HIGH])
    assert (with_pair - before).abs().max() > 0.01
    merged = query(models[HIGH])
    again, _ = models_with_loras(models, pair, None)
    assert torch.equal(core_velocity(again[HIGH]), with_pair)
    assert query(models[HIGH]) is merged
    weaker, _ = models_with_loras(models, (Lora(PAIR["high"], 0.5, "high"),), None)
    assert not torch.equal(core_velocity(weaker[HIGH]), with_pair)
    assert torch.equal(core_velocity(models[HIGH]), before)


def test_one_model_for_both_experts_gets_each_its_own(models: dict[str, Any], tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.host import loras

    name = "blocks.0.attn1.to_q"
    halves = [lora_files.FORMATS["diffusers"]({name: lora_files.change_of(256, 256, seed)}) for seed in (1, 2)]
    file = halves[0] | {k.replace("transformer.", "transformer_2.", 1): v for k, v in halves[1].items()}
    save_file({k: v.contiguous() for k, v in file.items()}, tmp_path / "both.safetensors")
    monkeypatch.setattr(loras, "lora_file", lambda name: tmp_path / name)
    same = {HIGH: models[HIGH], LOW: models[HIGH]}
    both, _ = loras.models_with_loras(same, (Lora("both.safetensors", 1.0, "both"),), None)
    assert not torch.equal(core_velocity(both[HIGH]), core_velocity(both[LOW]))


@pytest.mark.parametrize("by_column", [False, True], ids=["rows", "columns"])
def test_dora(by_column: bool, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same velocity as through our own sampler, which tests/lora/test_apply.py compares with the sum."""
    from pipeline.host import loras as in_comfyui

    host = comfy_host()
    expert = load_expert(bundled.DEMO_HIGH, host)
    base = {name: value.float() for name, value in expert.model.named_parameters()}
    file, _ = lora_files.dora(lora_files.changes_of(base), base, by_column=by_column)
    path = tmp_path / "dora.safetensors"
    save_file({k: v.contiguous().clone() for k, v in file.items()}, path)
    loras = (Lora(path.name, 0.7, "high"),)
    ours, _ = use_loras(Wan22Model(expert, expert), loras, lambda name: path, None, lambda: None)
    wanted, plain = our_velocity(ours.high), our_velocity(expert)
    monkeypatch.setattr(in_comfyui, "lora_file", lambda name: path)
    changed, report = in_comfyui.models_with_loras(models, loras, None)
    assert f"{len(file)} of {len(file)} keys" in report[0]
    found = core_velocity(changed[HIGH])
    assert (wanted - plain).abs().max() > 0.1 * wanted.std()
    assert (found - wanted).abs().max() < 1e-3 * wanted.std()  # core rounds its merged weights to float16
