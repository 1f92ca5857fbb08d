"""Weights that ComfyUI's dynamic VRAM reads from the file itself; its library runs here, the GPU's side does not."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from tests.checkpoint.test_layouts import SAFETENSORS
from tests.support import layouts
from tests.support.comfy_in_process import comfy_host, import_comfyui

FILES = {"fp16": SAFETENSORS["fp16"][0], "fp8_scaled legacy": SAFETENSORS["fp8_scaled legacy"][0],
         "nvfp4": SAFETENSORS["nvfp4"][0], "F16": layouts.gguf_file("F16"), "Q4_0": layouts.gguf_file("Q4_0")}


class PlainBuffer:
    """A host buffer as comfy_aimdo's, in plain memory: reads a part of a file to a place in it."""

    def __init__(self, size: int) -> None:
        self.bytes = torch.zeros(size, dtype=torch.uint8)
        self.bytes.untyped_storage()._comfy_hostbuf = self
        self.reads = 0

    def get_raw_address(self) -> int:
        return self.bytes.data_ptr()

    def read_file_slice(self, file: int, file_offset: int, size: int, offset: int, **_: Any) -> None:
        self.reads += 1
        self.bytes[offset:offset + size] = torch.frombuffer(bytearray(os.pread(file, size, file_offset)),
                                                            dtype=torch.uint8)


@pytest.fixture
def dynamic_vram(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI as it is once it has found a GPU that comfy_aimdo knows; its library reads files without one, too."""
    import_comfyui()
    import comfy.memory_management
    from comfy_aimdo import control

    monkeypatch.setattr(control, "lib", None)
    if not control.init("cuda"):
        pytest.skip("comfy_aimdo has no library for this system")
    monkeypatch.delitem(sys.modules, "comfy_aimdo.model_mmap", raising=False)  # it takes the library when imported
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)


@pytest.mark.parametrize("name", FILES)
def test_every_weight_of_a_layer_is_read_from_the_file(name: str, dynamic_vram: None, tmp_path: Path) -> None:
    """By ComfyUI's own function, as it fetches a layer; the biases too."""
    from comfy.memory_management import interpret_gathered_like, vram_aligned_size
    from comfy.model_management import cast_to_gathered

    path = tmp_path / f"expert.{'gguf' if name in ('F16', 'Q4_0') else 'safetensors'}"
    FILES[name](load_file(bundled.DEMO_HIGH), path)
    expert = load_expert(path, comfy_host())
    layers = [m for m in expert.model.blocks.modules() if hasattr(m, "comfy_cast_weights")]
    assert len(layers) == 10 * expert.model.config.num_layers
    for layer in layers:
        parts = [layer.weight, layer.bias]
        buffer = PlainBuffer(vram_aligned_size(parts))
        cast_to_gathered(parts, buffer.bytes)
        assert buffer.reads == 2
        assert all(torch.equal(plain(found), plain(wanted))
                   for found, wanted in zip(interpret_gathered_like(parts, buffer.bytes), parts, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_is_let_go_with_the_expert(dynamic_vram: None, tmp_path: Path) -> None:
    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text("utf-8")

    def run(expert: Expert) -> bool:
        return bool(expert.model.blocks[0].ffn.net[2].weight.isfinite().all())

    (tmp_path / "expert.safetensors").write_bytes(bundled.DEMO_HIGH.read_bytes())
    expert = load_expert(tmp_path / "expert.safetensors", comfy_host())
    gc.collect()
    assert mapped() and run(expert)
    del expert
    gc.collect()
    assert not mapped()


def plain(weight: torch.Tensor) -> torch.Tensor:
    """A weight's numbers, also of ComfyUI's quantised tensors."""
    return weight.dequantize() if hasattr(weight, "dequantize") and hasattr(weight, "_qdata") else weight
