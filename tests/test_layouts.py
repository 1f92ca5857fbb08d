"""Every layout of an expert loads, and gives what the unquantised weights give within the layout's own error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline import load as bundled
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.expert import Expert, load_expert
from pipeline.host import plain_host
from tests import layouts
from tests.comfy_in_process import comfy_host

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
    expert.resident.bring(0)
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
    host = comfy_host().host()
    path = tmp_path / ("expert" if "folder" in name else "expert.safetensors")
    write(weights, path)
    if not inside_comfyui:
        host = plain_host()
        if not plain_too:
            with pytest.raises(CheckpointError, match="only be used inside ComfyUI"):
                load_expert(path, host)
            return
    assert error(velocity(load_expert(path, host)), original) <= most
