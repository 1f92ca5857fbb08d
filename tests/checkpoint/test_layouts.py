"""Every layout of an expert loads, and gives what the unquantised weights give within the layout's own error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.quantised import QuantisedWeight
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import plain_host
from tests.support import layouts
from tests.support.comfy_in_process import comfy_host

INT8 = {"format": "int8_tensorwise"}
ROTATED = INT8 | {"convrot": True, "convrot_groupsize": 256}
# layout, largest error relative to the unquantised output's standard deviation, read outside ComfyUI too
SAFETENSORS = {
    "fp16": (layouts.plain(torch.float16), 0.0, True),
    "bf16": (layouts.plain(torch.bfloat16), 0.02, True),
    "fp32": (layouts.plain(torch.float32), 1e-6, True),
    "prefixed": (layouts.prefixed, 0.0, True),
    "fp8 unscaled": (layouts.fp8_unscaled, 0.06, True),
    "fp8_scaled legacy": (layouts.fp8_legacy, 0.04, True),
    "fp8_scaled legacy, full precision": (layouts.fp8_legacy_full_precision, 0.04, True),
    "fp8_scaled legacy, prefixed": (layouts.fp8_legacy_prefixed, 0.04, True),
    "fp8_scaled e4m3": (layouts.fp8_comfy(torch.float8_e4m3fn), 0.04, True),
    "fp8_scaled e5m2": (layouts.fp8_comfy(torch.float8_e5m2), 0.08, True),
    "fp8_scaled in the header": (layouts.fp8_in_header, 0.04, True),
    "int8": (layouts.by_comfy("TensorWiseINT8Layout", INT8, per_channel=True), 0.02, False),
    "int8_convrot": (layouts.by_comfy("TensorWiseINT8Layout", ROTATED, per_channel=True, convrot=True), 0.02, False),
    "nvfp4": (layouts.by_comfy("TensorCoreNVFP4Layout", {"format": "nvfp4"}), 0.2, False),
    "diffusers folder": (layouts.diffusers_folder(1), 0.0, True),
    "diffusers folder, sharded": (layouts.diffusers_folder(3), 0.0, True),
}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(bundled.DEMO_HIGH)


@torch.no_grad()
def velocity(expert: Expert) -> torch.Tensor:
    """The expert's answer to fixed noise and text, (1, 16, 3, 12, 8)."""
    g = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 36, 3, 12, 8, generator=g), torch.randn(1, 512, expert.text_dim, generator=g)
    expert.resident.load_to_device(0)
    return expert.model(noisy, torch.tensor([500.0]), text, return_dict=False)[0].float()


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).pow(2).mean().sqrt() / wanted.std()).item()


@pytest.fixture(scope="module")
def original() -> torch.Tensor:
    return velocity(load_expert(bundled.DEMO_HIGH, plain_host()))


@pytest.mark.parametrize("inside_comfyui", [True, False], ids=["comfyui", "plain"])
@pytest.mark.parametrize("name", SAFETENSORS)
def test_layout(name: str, inside_comfyui: bool, weights: dict[str, torch.Tensor], original: torch.Tensor,
                tmp_path: Path) -> None:
    write, most, plain_too = SAFETENSORS[name]
    host = comfy_host()
    path = tmp_path / ("expert" if "folder" in name else "expert.safetensors")
    write(weights, path)
    if not inside_comfyui:
        host = plain_host()
        if not plain_too:
            with pytest.raises(CheckpointError, match="only be used inside ComfyUI"):
                load_expert(path, host)
            return
    assert error(velocity(load_expert(path, host)), original) <= most


def test_a_format_that_newer_comfyuis_read(weights: dict[str, torch.Tensor], original: torch.Tensor,
                                           tmp_path: Path) -> None:
    """It is read where ComfyUI knows it, with all of its scales, and refused by its name elsewhere."""
    host = comfy_host()
    from comfy.quant_ops import QUANT_ALGOS

    path = tmp_path / "expert.safetensors"
    if "asym_w4a8_int8" in QUANT_ALGOS:
        layouts.by_comfy("AsymW4A8Int8Layout", {"format": "asym_w4a8_int8"})(weights, path)
        assert error(velocity(load_expert(path, host)), original) <= 0.2
    else:
        layouts.w4a8(weights, path)
        with pytest.raises(CheckpointError, match="This ComfyUI does not read asym_w4a8_int8 weights"):
            load_expert(path, host)


def test_settings_of_comfyuis_attention_are_left_aside(weights: dict[str, torch.Tensor], original: torch.Tensor,
                                                       tmp_path: Path) -> None:
    settings = torch.tensor(list(b'{"kernel": "sage"}'), dtype=torch.uint8)
    save_file({**weights, "blocks.0.self_attn.comfy_attention.config": settings}, tmp_path / "expert.safetensors")
    assert error(velocity(load_expert(tmp_path / "expert.safetensors", plain_host())), original) == 0


GGUF = {
    "F32": 1e-6, "F16": 1e-6, "BF16": 0.02, "Q8_0": 0.02, "Q5_1": 0.08, "Q5_0": 0.08, "Q4_1": 0.15, "Q4_0": 0.15,
}
HOSTS = {"comfyui": lambda: comfy_host(), "plain": plain_host}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", GGUF)
def test_gguf(kind: str, host: str, weights: dict[str, torch.Tensor], original: torch.Tensor, tmp_path: Path) -> None:
    layouts.gguf_file(kind)(weights, tmp_path / "expert.gguf")
    expert = load_expert(tmp_path / "expert.gguf", HOSTS[host]())
    assert error(velocity(expert), original) <= GGUF[kind]


@pytest.mark.parametrize("patch_embedding", layouts.PATCH_EMBEDDINGS)
def test_gguf_patch_embedding(patch_embedding: str, weights: dict[str, torch.Tensor], original: torch.Tensor,
                              tmp_path: Path) -> None:
    layouts.gguf_file("F16", patch_embedding)(weights, tmp_path / "expert.gguf")
    assert error(velocity(load_expert(tmp_path / "expert.gguf", plain_host())), original) <= 1e-6


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", layouts.SCALE_BYTES)
def test_gguf_k_types(kind: str, host: str, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Against the gguf package's own reading of the same blocks."""
    meant = layouts.random_k_blocks(kind, weights, tmp_path / "expert.gguf")
    layouts.plain(torch.float32)(meant, tmp_path / "meant.safetensors")
    wanted = velocity(load_expert(tmp_path / "meant.safetensors", plain_host()))
    assert error(velocity(load_expert(tmp_path / "expert.gguf", HOSTS[host]())), wanted) <= 1e-3


def test_scales_matter(weights: dict[str, torch.Tensor], original: torch.Tensor, tmp_path: Path) -> None:
    """The error of a loader that drops fp8 scales, which the limits above must be far below."""
    from safetensors.torch import save_file

    layouts.fp8_legacy(weights, tmp_path / "scaled.safetensors")
    unscaled = {k: torch.ones(()) if k.endswith("scale_weight") else v
                for k, v in load_file(tmp_path / "scaled.safetensors").items()}
    save_file(unscaled, tmp_path / "unscaled.safetensors")
    assert error(velocity(load_expert(tmp_path / "unscaled.safetensors", plain_host())), original) > 0.4


def test_leftover_scales_are_an_error(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({**weights, "blocks.0.norm3.scale_weight": torch.ones(())}, tmp_path / "expert.safetensors")
    with pytest.raises(CheckpointError, match="scale_weight not known"):
        load_expert(tmp_path / "expert.safetensors", plain_host())


@pytest.mark.parametrize("entry", [b'{"format": ', b'{"scheme": "float8_e4m3fn"}', b"[]", b"\xff\xfe"])
def test_damaged_entries_are_an_error(entry: bytes, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    SAFETENSORS["fp8_scaled e4m3"][0](weights, tmp_path / "expert.safetensors")
    found = load_file(tmp_path / "expert.safetensors")
    damaged = next(k for k in found if k.endswith(".comfy_quant"))
    found[damaged] = torch.tensor(list(entry), dtype=torch.uint8)
    save_file(found, tmp_path / "expert.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_expert(tmp_path / "expert.safetensors", plain_host())


def test_a_damaged_header_entry_is_an_error(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "expert.safetensors", {"_quantization_metadata": "{"})
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_expert(tmp_path / "expert.safetensors", plain_host())


@pytest.mark.parametrize("weight", [
    torch.zeros(32, 32, dtype=torch.float8_e4m3fn), QuantisedWeight("float8_e5m2", torch.zeros(32, 32), (32, 32)),
    QuantisedWeight("mxfp8", torch.zeros(32, 32), (32, 32)), QuantisedWeight("nvfp4", torch.zeros(32, 16), (32, 32)),
], ids=["plain", "scaled", "mxfp8", "nvfp4"])
def test_apples_gpus_refuse_fp8_at_once(weight: torch.Tensor | QuantisedWeight,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    host = comfy_host()
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "is_device_mps", lambda device: True)
    layer = host.linear(torch.float16)(32, 32, bias=False)
    layer.assign_weight(torch.zeros(32, 32, dtype=torch.float16), None)
    with pytest.raises(CheckpointError, match=r"fp8, which Apple.*cannot use.*Choose an fp16 or GGUF file"):
        layer.assign_weight(weight, None)


@pytest.mark.parametrize("name", ["fp16", "fp8_scaled legacy", "int8"])
def test_back_from_a_device_the_files_own_pages_are_used(name: str, weights: dict[str, torch.Tensor],
                                                         tmp_path: Path) -> None:
    """On the way to another device and back nothing is copied; "meta" stands for a GPU."""
    host = comfy_host()
    SAFETENSORS[name][0](weights, tmp_path / "expert.safetensors")
    layer = load_expert(tmp_path / "expert.safetensors", host).model.blocks[0].ffn.net[0].proj
    before = layer.weight.data_ptr()
    layer.to("meta")
    assert layer.weight.device.type == "meta"
    layer.to("cpu")
    assert layer.weight.device.type == "cpu" and layer.weight.data_ptr() == before
