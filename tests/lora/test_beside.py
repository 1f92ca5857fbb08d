"""LoRAs beside the layers: exact sums, quantised products kept, placed once and freed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.quantised import QuantisedWeight, Weight, dequantise
from pipeline.lora.apply import apply_loras
from pipeline.lora.arithmetic import ModulePatch
from pipeline.lora.match import LoraFile
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import Host, plain_host
from pipeline.models.load import Wan22Model
from pipeline.models.patches import ChangedWeight, Patch, PatchedModule, _balanced
from tests.support import layouts, lora_files
from tests.support.comfy_in_process import comfy_host, import_comfyui

ROWS, COLUMNS = 192, 320
CPU = torch.device("cpu")
HOSTS = {"plain": plain_host, "ComfyUI": comfy_host}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(rank: int, seed: int) -> ModulePatch:
    """With alpha 0.7 rank, in bfloat16 as trainers save it."""
    return ModulePatch({"lora_up.weight": random(ROWS, rank, seed=seed).bfloat16(),
                        "lora_down.weight": random(rank, COLUMNS, seed=seed + 1).bfloat16() / 18}, 0.7)


def stored(layout: str) -> Weight:
    weight = random(ROWS, COLUMNS, seed=9) / 18
    if layout == "fp8":
        scale = weight.abs().max() / 448
        return QuantisedWeight("float8_e4m3fn", (weight / scale).to(torch.float8_e4m3fn), (ROWS, COLUMNS),
                               {"weight_scale": scale})
    return weight.half()


def layer_of(host: Host, weight: Weight, compute: torch.dtype = torch.float32) -> torch.nn.Module:
    """A module with one linear layer, called `one`."""
    layer = host.linear(compute)(COLUMNS, ROWS, bias=True)
    layer.assign_weight(weight, random(ROWS, seed=8).half())
    return torch.nn.ModuleDict({"one": layer})


def exact(weight: Weight, changes: list[tuple[float, ModulePatch]], of_bias: torch.Tensor, x: torch.Tensor,
          ) -> torch.Tensor:
    summed = dequantise(weight, torch.float32).double()
    for scale, change in changes:
        change.add_to(summed, scale)
    return x.double() @ summed.T + (random(ROWS, seed=8).half().double() + of_bias)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("layout", ["fp16", "fp8"])
@pytest.mark.parametrize("host", HOSTS)
@torch.no_grad()
def test_a_stack_is_the_exact_sum(host: str, layout: str) -> None:
    """Of LoRAs of several ranks and scales, and a difference of the bias, at two strengths one after the other."""
    weight, x, of_bias = stored(layout), random(2, 7, COLUMNS, seed=5), random(ROWS, seed=6)
    layer = layer_of(HOSTS[host](), weight)
    patched = PatchedModule(layer)
    plain = layer["one"](x)
    changes, diff = [low_rank(4, 1), low_rank(11, 2), low_rank(4, 3)], ModulePatch({"diff": of_bias})
    for scales in ((0.8, -1.5, 0.3), (0.4, 0.0, 2.0)):
        pairs = list(zip(scales, changes, strict=True))
        patches = [*(Patch("one.weight", *pair) for pair in pairs), Patch("one.bias", scales[0], diff)]
        patched.put(patches, CPU)
        wanted = exact(weight, pairs, scales[0] * of_bias.double(), x)
        assert off(layer["one"](x), wanted) < 1e-6
        assert off(plain, wanted) > 0.1
    patched.put([], CPU)
    assert torch.equal(layer["one"](x), plain)


@pytest.mark.parametrize("host", HOSTS)
@torch.no_grad()
def test_what_depends_on_the_weight_keeps_its_place_in_the_order(host: str) -> None:
    """A DoRA after a LoRA sees the sum."""
    weight, x = stored("fp16"), random(3, COLUMNS, seed=5)
    layer = layer_of(HOSTS[host](), weight)
    dora = ModulePatch({**low_rank(4, 4).parts, "dora_scale": random(ROWS, 1, seed=7).abs() + 1})
    pairs = [(0.8, low_rank(4, 1)), (0.6, dora)]
    PatchedModule(layer).put([Patch("one.weight", *pair) for pair in pairs], CPU)
    assert off(layer["one"](x), exact(weight, pairs, torch.zeros(ROWS), x)) < 1e-6
    assert layer["one"].beside is None


@pytest.mark.parametrize("compute, most", [(torch.float32, 1.05), (torch.bfloat16, 1.15)])
@torch.no_grad()
def test_the_error_on_fp8_is_about_that_of_the_sum_worked_out_on_the_weight(compute: torch.dtype, most: float) -> None:
    """Against the exact sum of the dequantised weight and the LoRA; in bfloat16 the output is rounded once more."""
    weight, x = stored("fp8"), random(512, COLUMNS, seed=5).to(compute)
    layer, change = layer_of(comfy_host(), weight, compute), low_rank(16, 1)
    change = ModulePatch({name: part / 2 for name, part in change.parts.items()}, change.factor)
    wanted = exact(weight, [(0.8, change)], torch.zeros(ROWS), x)
    PatchedModule(layer).put([Patch("one.weight", 0.8, change)], CPU)
    beside = off(layer["one"](x), wanted)
    layer["one"].beside, layer["one"].weight_function = None, [ChangedWeight([(0.8, change)])]
    assert beside <= most * off(layer["one"](x), wanted)
    assert beside < {torch.float32: 1e-6, torch.bfloat16: 0.01}[compute]


def lora_on_every_layer(expert: Expert, path: Path, rank: int = 32) -> LoraFile:
    changes = lora_files.changes_of({f"{name}.weight": layer.weight for name, layer in expert.model.named_modules()
                                     if hasattr(layer, "beside")})
    save_file(lora_files.lora("diffusion_model.", "lora_B.weight", "lora_A.weight", rank=lambda _: rank)(changes), path)
    return lora_files.opened(path)


@torch.no_grad()
def kernels(expert: Expert) -> Counter[str]:
    """Count the calls of each operation of the kernels for quantised matrices in a pass."""
    g = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, 36, 1, 4, 4, generator=g), torch.tensor([500.0]), torch.randn(1, 64, expert.text_dim)
    with torch.profiler.profile(acc_events=True) as profiler:
        expert.model(*inputs, return_dict=False)
    return Counter(event.name for event in profiler.events() if event.name.startswith("comfy_kitchen::"))


@pytest.mark.parametrize("layout, kernel", [("int8", "comfy_kitchen::int8_linear"),
                                            ("fp8_scaled", "comfy_kitchen::quantize_fp8")])
def test_quantised_products_stay_in_use(layout: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        ) -> None:
    """As many as without a LoRA. fp8 as with --supports-fp8-compute, where each product quantises its input."""
    import_comfyui()
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "SUPPORT_FP8_OPS", True)
    write: dict[str, Callable[..., None]] = {
        "int8": layouts.by_comfy("TensorWiseINT8Layout", {"format": "int8_tensorwise"}),
        "fp8_scaled": layouts.fp8_comfy(torch.float8_e4m3fn)}
    write[layout](load_file(bundled.DEMO_HIGH), tmp_path / "expert.safetensors")
    expert = load_expert(tmp_path / "expert.safetensors", comfy_host())
    expert.resident.load_to_device(0)
    without = kernels(expert)
    model, _ = apply_loras(Wan22Model(expert, expert), [lora_on_every_layer(expert, tmp_path / "lora.safetensors")])
    expert.resident.load_to_device(0, model.high.patches)
    layers = [layer for name, layer in expert.model.named_modules() if hasattr(layer, "beside") and "blocks." in name]
    assert len(layers) == 50 and all(layer.beside is not None for layer in layers)
    assert kernels(expert) == without and without[kernel] == 50


def test_what_is_beside_comes_once(tmp_path: Path) -> None:
    """Under ComfyUI: counted before it is placed, and kept while strengths change and while the expert is unloaded."""
    host = comfy_host()
    import comfy.model_management

    expert = load_expert(bundled.DEMO_HIGH, host)
    model, _ = apply_loras(Wan22Model(expert, expert), [lora_on_every_layer(expert, tmp_path / "lora.safetensors")])
    patches = model.high.patches
    asked: list[float] = []
    original = comfy.model_management.load_models_gpu

    def spied(models: list[Any], memory_required: float = 0, **options: Any) -> None:
        asked.append(memory_required)
        original(models, memory_required=memory_required, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.model_management, "load_models_gpu", spied)
        for scale in (0.0, 1.0, 0.5):
            expert.resident.load_to_device(0, [Patch(p.parameter, scale, p.change) for p in patches] if scale else ())
    size = sum(4 * part.numel() for patch in patches for part in patch.change.parts.values())
    assert size > 100_000 and [more - asked[0] for more in asked] == [0, size, 0]
    layer = expert.model.get_submodule("blocks.0.ffn.net.0.proj")
    down = layer.beside.down
    expert.resident.load_to_device(0, patches)
    assert layer.beside.down is down
    comfy.model_management.unload_all_models()
    expert.resident.load_to_device(0, patches)
    assert layer.beside.down is down
    expert.resident.remove_patches()
    assert layer.beside is None


@torch.no_grad()
def test_another_strength_compiles_nothing_anew() -> None:
    layer = layer_of(plain_host(), stored("fp16"))
    patched, x, change = PatchedModule(layer), random(4, COLUMNS, seed=5), low_rank(4, 1)
    output = layer["one"](x)
    with torch._dynamo.config.patch(error_on_recompile=True):
        run = torch.compile(lambda output: layer["one"].beside.add_to(output.clone(), x), backend="eager",
                            fullgraph=True)
        for scale in (1.0, 0.5, 0.0):
            patched.put([Patch("one.weight", scale, change)], CPU)
            assert off(run(output), exact(stored("fp16"), [(scale, change)], torch.zeros(ROWS), x)) < 1e-6


def test_matrices_that_are_far_apart_do_not_overflow_in_float16() -> None:
    up, down = torch.randn(64, 4), torch.randn(4, 48)
    x = torch.randn(5, 48) * 30
    exact = x.double() @ down.double().T @ up.double().T
    for factor in (1.0, 1e4, 1e-6):
        halves = _balanced(up / factor, down * factor)
        found = (x.half() @ halves[1].half().T) @ halves[0].half().T
        assert float((found.double() - exact).norm() / exact.norm()) < 2e-3
