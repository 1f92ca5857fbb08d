"""The strength of a LoRA: every adapter type, source of alpha and sign against its formula in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.quantised import dequantise
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.lora.apply import apply_loras
from pipeline.lora.match import LoraFile
from pipeline.lora.probe import probe_lora
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import CastingLinear, Host, plain_host
from pipeline.models.load import Wan22Model
from pipeline.request import HIGH, LOW, Lora
from tests.support import layouts
from tests.support.comfy_in_process import comfy_host, import_comfyui
from tests.support.lora_files import opened

SCALES = (-1.0, 0.3, 0.8, 1.0, 2.0)
LINEAR, CONVOLUTION = "blocks.0.ffn.net.0.proj", "patch_embedding"  # (768, 256) and (256, 36, 1, 2, 2)
STORED = {"fp16": layouts.plain(torch.float16), "fp8": layouts.fp8_comfy(torch.float8_e4m3fn),
          "GGUF": layouts.gguf_file("Q8_0")}
Tensors = dict[str, torch.Tensor]
Trained = Callable[[torch.Tensor], torch.Tensor]
"""The weight in float64 -> the weight as it was trained."""


# ---- formulas --------------------------------------------------------------------------------------------------------


def numbers(*shape: int, seed: int = 0, size: float = 0.1) -> torch.Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed + len(shape) + sum(shape)))


def f64(tensors: Tensors) -> Tensors:
    return {name: tensor.double() for name, tensor in tensors.items()}


def lora(shape: torch.Size, alpha: float | None = 6.0) -> tuple[Tensors, Trained]:
    kernel = shape[2:]
    parts = {"lora_up.weight": numbers(shape[0], 4, *[1] * len(kernel)), "lora_down.weight": numbers(4, *shape[1:])}
    parts |= {} if alpha is None else {"alpha": torch.tensor(alpha)}
    p = f64(parts)
    change = (1.0 if alpha is None else alpha / 4) * p["lora_up.weight"].flatten(1) @ p["lora_down.weight"].flatten(1)
    return parts, lambda weight: weight + change.reshape(shape)


def tucker_lora(shape: torch.Size) -> tuple[Tensors, Trained]:
    parts = {"lora_up.weight": numbers(shape[0], 3, 1, 1, 1), "lora_mid.weight": numbers(3, 5, *shape[2:], size=1.0),
             "lora_down.weight": numbers(5, shape[1], 1, 1, 1, size=1.0), "alpha": torch.tensor(2.0)}
    p = f64(parts)
    change = torch.einsum("or,rskhw,si->oikhw", p["lora_up.weight"].flatten(1), p["lora_mid.weight"],
                          p["lora_down.weight"].flatten(1))
    return parts, lambda weight: weight + 2 / 5 * change


def loha(shape: torch.Size) -> tuple[Tensors, Trained]:
    columns = shape[1:].numel()
    parts = {f"hada_w{i}_a": numbers(shape[0], 4, seed=i, size=0.3) for i in (1, 2)}
    parts |= {f"hada_w{i}_b": numbers(4, columns, seed=i, size=0.3) for i in (1, 2)} | {"alpha": torch.tensor(-3.0)}
    p = f64(parts)
    change = (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    return parts, lambda weight: weight - 3 / 4 * change.reshape(shape)


def tucker_loha(shape: torch.Size) -> tuple[Tensors, Trained]:
    parts = {f"hada_w{i}_a": numbers(4, shape[0], seed=i, size=0.3) for i in (1, 2)}
    parts |= {f"hada_w{i}_b": numbers(4, shape[1], seed=i, size=0.3) for i in (1, 2)}
    parts |= {f"hada_t{i}": numbers(4, 4, *shape[2:], seed=i, size=1.0) for i in (1, 2)}
    p = f64(parts)
    one, two = (torch.einsum("rskhw,ro,si->oikhw", p[f"hada_t{i}"], p[f"hada_w{i}_a"], p[f"hada_w{i}_b"])
                for i in (1, 2))
    return parts, lambda weight: weight + one * two


def lokr(shape: torch.Size, whole: bool) -> tuple[Tensors, Trained]:
    """Kernels belong to the second factor; with both factors whole LyCORIS writes an alpha that counts for nothing."""
    outputs, inputs, kernel = shape[0] // 4, shape[1] // 2, shape[2:]
    if whole:
        parts = {"lokr_w1": numbers(4, 2, size=1.0), "lokr_w2": numbers(outputs, inputs, *kernel),
                 "alpha": torch.tensor(9e9)}
        two, factor = parts["lokr_w2"].double(), 1.0
    else:
        parts = {"lokr_w1_a": numbers(4, 3), "lokr_w1_b": numbers(3, 2), "lokr_w2_a": numbers(outputs, 3),
                 "lokr_w2_b": numbers(3, inputs * kernel.numel()), "alpha": torch.tensor(30.0)}
        two, factor = parts["lokr_w2_a"].double() @ parts["lokr_w2_b"].double(), 10.0
    one = parts["lokr_w1"].double() if whole else parts["lokr_w1_a"].double() @ parts["lokr_w1_b"].double()
    change = torch.einsum("ab,cd...->acbd...", one, two.reshape(outputs, inputs, *kernel)).reshape(shape)
    return parts, lambda weight: weight + factor * change


def tucker_lokr(shape: torch.Size) -> tuple[Tensors, Trained]:
    parts = {"lokr_w1": numbers(4, 2, size=1.0), "lokr_w2_a": numbers(3, shape[0] // 4, size=0.3),
             "lokr_w2_b": numbers(3, shape[1] // 2, size=0.3), "lokr_t2": numbers(3, 3, *shape[2:], size=1.0)}
    p = f64(parts)
    two = torch.einsum("rskhw,ro,si->oikhw", p["lokr_t2"], p["lokr_w2_a"], p["lokr_w2_b"])
    change = torch.einsum("ab,cd...->acbd...", p["lokr_w1"], two).reshape(shape)
    return parts, lambda weight: weight + change


def glora(shape: torch.Size, old: bool) -> tuple[Tensors, Trained]:
    outputs, inputs = shape
    out_of, into = (numbers(inputs, 4, seed=1), numbers(4, inputs, seed=2))
    up, down = numbers(outputs, 4, seed=3), numbers(4, inputs, seed=4)
    names = ("a2", "a1", "b2", "b1") if old else ("a1", "a2", "b1", "b2")
    parts = {f"{name}.weight": part for name, part in zip(names, (out_of, into, up, down), strict=True)}
    return {**parts, "alpha": torch.tensor(8.0)}, lambda weight: weight + 2.0 * (
        weight @ out_of.double() @ into.double() + up.double() @ down.double())


def oft(shape: torch.Size, alpha: float, rescaled: bool) -> tuple[Tensors, Trained]:
    parts = {"oft_blocks": numbers(shape[0] // 16, 16, 16, size=0.2), "alpha": torch.tensor(alpha)}
    parts |= {"rescale": 1.0 + numbers(shape[0], *[1] * (len(shape) - 1), size=0.3)} if rescaled else {}
    p = f64(parts)
    q = p["oft_blocks"] - p["oft_blocks"].transpose(1, 2)
    q = q * min(1.0, alpha * shape[0] / q.norm().item()) if alpha else q
    rotation = torch.block_diag(*[(torch.eye(16) + b) @ torch.linalg.inv(torch.eye(16) - b) for b in q])
    return parts, lambda weight: (p["rescale"] if rescaled else 1.0) * (
        rotation.T @ weight.flatten(1)).reshape(shape)


def boft(shape: torch.Size) -> tuple[Tensors, Trained]:
    """Three stages of blocks of 4, each after a permutation that brings rows 2 x 2^stage apart side by side."""
    size, rows = 4, shape[0]
    parts = {"oft_blocks": numbers(3, rows // size, size, size, size=0.2),
             "rescale": 1.0 + numbers(rows, *[1] * (len(shape) - 1), size=0.3)}
    p = f64(parts)
    whole = torch.eye(rows, dtype=torch.float64)
    for stage in range(3):
        apart = 2**stage * size // 2
        order = torch.arange(rows).view(-1, 2, apart).transpose(1, 2).flatten()
        q = p["oft_blocks"][stage] - p["oft_blocks"][stage].transpose(1, 2)
        turn = torch.block_diag(*[(torch.eye(size) + b) @ torch.linalg.inv(torch.eye(size) - b) for b in q])
        permutation = torch.eye(rows, dtype=torch.float64)[order]
        whole = permutation.T @ turn @ permutation @ whole
    return parts, lambda weight: p["rescale"] * (whole @ weight.flatten(1)).reshape(shape)


def dora(of: tuple[Tensors, Trained], shape: torch.Size, magnitude_shape: tuple[int, ...], axis: int,
         ) -> tuple[Tensors, Trained]:
    magnitude = 2.0 + numbers(*magnitude_shape, size=0.3).abs()
    axes = [other for other in range(len(shape)) if other != axis]
    wanted = [1] * len(shape)
    wanted[axis] = shape[axis]

    def trained(weight: torch.Tensor) -> torch.Tensor:
        summed = of[1](weight)
        return magnitude.double().reshape(wanted) * summed / summed.square().sum(axes, keepdim=True).sqrt()

    return of[0] | {"dora_scale": magnitude}, trained


def difference(shape: torch.Size) -> tuple[Tensors, Trained]:
    change = numbers(*shape)
    return {"diff": change}, lambda weight: weight + change.double()


def replacement(shape: torch.Size) -> tuple[Tensors, Trained]:
    whole = numbers(*shape)
    return {"set_weight": whole}, lambda weight: whole.double()


def lora_beside_difference(shape: torch.Size) -> tuple[Tensors, Trained]:
    (one, with_one), (two, with_two) = lora(shape), difference(shape)
    return one | two, lambda weight: with_two(with_one(weight))


TYPES: dict[str, tuple[str, Callable[[torch.Size], tuple[Tensors, Trained]]]] = {
    "LoRA": (LINEAR, lora),
    "LoRA, negative alpha": (LINEAR, lambda shape: lora(shape, -2.0)),
    "LoRA without alpha": (LINEAR, lambda shape: lora(shape, None)),
    "LoRA of a convolution": (CONVOLUTION, lora),
    "LoRA, Tucker": (CONVOLUTION, tucker_lora),
    "LoRA and difference": (LINEAR, lora_beside_difference),
    "LoHa": (LINEAR, loha),
    "LoHa of a convolution": (CONVOLUTION, loha),
    "LoHa, Tucker": (CONVOLUTION, tucker_loha),
    "LoKr": (LINEAR, lambda shape: lokr(shape, False)),
    "LoKr, whole": (LINEAR, lambda shape: lokr(shape, True)),
    "LoKr of a convolution": (CONVOLUTION, lambda shape: lokr(shape, False)),
    "LoKr of a convolution, whole": (CONVOLUTION, lambda shape: lokr(shape, True)),
    "LoKr, Tucker": (CONVOLUTION, tucker_lokr),
    "GLoRA": (LINEAR, lambda shape: glora(shape, False)),
    "GLoRA of old": (LINEAR, lambda shape: glora(shape, True)),
    "OFT": (LINEAR, lambda shape: oft(shape, 0.0, False)),
    "OFT, rescaled": (LINEAR, lambda shape: oft(shape, 0.0, True)),
    "OFT, constrained": (LINEAR, lambda shape: oft(shape, 0.001, False)),
    "OFT of a convolution": (CONVOLUTION, lambda shape: oft(shape, 0.0, True)),
    "BOFT": (LINEAR, boft),
    "DoRA, rows": (LINEAR, lambda shape: dora(lora(shape), shape, (shape[0], 1), 0)),
    "DoRA, columns": (LINEAR, lambda shape: dora(lora(shape), shape, (1, shape[1]), 1)),
    "DoRA of PEFT": (LINEAR, lambda shape: dora(lora(shape), shape, (shape[0],), 0)),
    "DoRA of PEFT, convolution": (CONVOLUTION, lambda shape: dora(lora(shape), shape, (1, shape[0], 1, 1, 1), 0)),
    "DoRA of inputs, convolution": (CONVOLUTION, lambda shape: dora(lora(shape), shape, (1, shape[1], 1, 1, 1), 1)),
    "DoRA of LoHa": (LINEAR, lambda shape: dora(loha(shape), shape, (shape[0], 1), 0)),
    "DoRA of LoKr": (LINEAR, lambda shape: dora(lokr(shape, False), shape, (shape[0], 1), 0)),
    "difference": (CONVOLUTION, difference),
    "whole weight": (LINEAR, replacement),
}


# ---- experts ---------------------------------------------------------------------------------------------------------


class Base:
    """An expert in one layout inside ComfyUI, and its weights unpacked."""

    def __init__(self, path: Path) -> None:
        self.host: Host = comfy_host()
        self.expert = load_expert(path, self.host)
        unpacked = load_expert(path, plain_host()).model
        self.weights = {name: value.float() for name, value in unpacked.named_parameters()}
        self.weights |= {f"{name}.weight": dequantise(layer.quantised, torch.float32)
                         for name, layer in unpacked.named_modules()
                         if isinstance(layer, CastingLinear) and layer.quantised is not None}

    def with_lora(self, file: LoraFile) -> tuple[Expert, str]:
        model, report = apply_loras(Wan22Model(self.expert, self.expert), [file])
        return model.high, report[0]


@torch.no_grad()
def weight_in_use(expert: Expert, module: str) -> torch.Tensor:
    """The weight with which the layer works: a linear one's as it acts on unit vectors."""
    expert.resident.load_to_device(0, expert.patches)
    layer = expert.model.get_submodule(module)
    if module != LINEAR:
        return layer.weight.float()
    inputs = torch.eye(layer.in_features)
    return (layer(inputs) - layer(torch.zeros_like(inputs))).T


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    made: dict[str, Base] = {}

    def base(stored: str) -> Base:
        if stored not in made:
            path = tmp_path_factory.mktemp("base") / ("expert.gguf" if stored == "GGUF" else "expert.safetensors")
            STORED[stored](load_file(bundled.DEMO_HIGH), path)
            made[stored] = Base(path)
        return made[stored]

    return base


def write(parts: Tensors, path: Path, prefix: str = f"transformer.{LINEAR}", metadata: dict[str, str] | None = None,
          scale: float = 1.0) -> LoraFile:
    save_file({f"{prefix}.{part}": tensor.contiguous() for part, tensor in parts.items()}, path, metadata)
    return opened(path, scale)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found.double() - wanted).norm() / wanted.norm()).item()


# ---- strength --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("stored", STORED)
def test_types(kind: str, stored: str, bases: Callable[[str], Base], tmp_path: Path) -> None:
    base, (module, formula) = bases(stored), TYPES[kind]
    weight = base.weights[f"{module}.weight"]
    parts, trained = formula(weight.shape)
    change = trained(weight.double()) - weight.double()
    assert change.norm() > 0.01 * weight.norm()
    for scale in SCALES:
        file = write(parts, tmp_path / "a.safetensors", f"transformer.{module}", scale=scale)
        expert, report = base.with_lora(file)
        assert off(weight_in_use(expert, module) - weight, scale * change) < 1e-5, scale
        assert f"{len(parts)} of {len(parts)} keys" in report
    assert off(weight_in_use(base.expert, module), weight.double()) < 1e-6


@pytest.mark.parametrize("kind", TYPES)
def test_types_on_models_of_comfyui(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with what ComfyUI adds to the weight before it rounds the sum to the file's dtype."""
    import_comfyui()
    import comfy.lora
    import comfy.sd

    from pipeline.host import loras as in_comfyui

    model = comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH))
    name = {LINEAR: "blocks.0.ffn.0", CONVOLUTION: "patch_embedding"}[TYPES[kind][0]]
    key = f"diffusion_model.{name}.weight"
    weight = model.model.get_parameter(key).float()
    parts, trained = TYPES[kind][1](weight.shape)
    path = tmp_path / "a.safetensors"
    write(parts, path, f"diffusion_model.{name}")
    monkeypatch.setattr(in_comfyui, "lora_file", lambda name: path)
    for scale in SCALES:
        patched, _ = in_comfyui.models_with_loras({HIGH: model, LOW: model}, (Lora("a", scale, HIGH),), None)
        patches = [(patch[0], comfy.lora.prefetch_prepared_value(patch[1], [0], None, None, False), *patch[2:])
                   for patch in patched[HIGH].patches[key]]  # as ComfyUI does before it copies them to a GPU
        found = comfy.lora.calculate_weight(patches, weight.clone(), key)
        assert off(found - weight, scale * (trained(weight.double()) - weight.double())) < 1e-5


def test_biases(bases: Callable[[str], Base], tmp_path: Path) -> None:
    """PEFT multiplies the bias of lora_B by alpha / rank, as it does the matrices; a difference counts as it is."""
    base, name = bases("fp16"), f"{LINEAR}.bias"
    parts, _ = lora(torch.Size((768, 256)), 16.0)
    for part, factor in (("lora_B.bias", 4.0), ("diff_b", 1.0)):
        bias = numbers(768)
        expert, report = base.with_lora(write({**parts, part: bias}, tmp_path / "a.safetensors", scale=-0.5))
        expert.resident.load_to_device(0, expert.patches)
        found = expert.model.get_submodule(LINEAR)(torch.zeros(1, 256))[0] - base.weights[name]
        assert off(found, -0.5 * factor * bias.double()) < 1e-5
        assert "4 of 4 keys" in report


# ---- alpha -----------------------------------------------------------------------------------------------------------


def config(component: str = "", **settings: Any) -> dict[str, str]:
    """The metadata that diffusers writes."""
    dot = f"{component}." * bool(component)
    return {"format": "pt", "lora_adapter_metadata": json.dumps({f"{dot}{k}": v for k, v in settings.items()})}


@pytest.mark.parametrize("prefix, metadata, factor, said", [
    ("transformer", config("transformer", r=4, lora_alpha=16), 4.0, "alpha 16 from its metadata."),
    ("transformer", config("transformer", r=4, lora_alpha=16, use_rslora=True), 8.0, "metadata, rank-stabilised."),
    ("transformer", config("transformer", r=8, lora_alpha=16, rank_pattern={LINEAR: 4},
                           alpha_pattern={"ffn.net.0.proj": 2}), 0.5, "alpha 2 from its metadata."),
    ("transformer", config("transformer", r=4, lora_alpha=16, alpha_pattern={
        "blocks.10.ffn.net.0.proj": 1, "0.proj.x": 1, r"blocks\.0\.attn1": 1,
        r"blocks\.\d+\.ffn\.net\.(0\.proj|2)": 2}), 0.5, "alpha 2 from"),
    ("transformer", config("transformer", r=4, lora_alpha=16, alpha_pattern={"proj": 3, LINEAR: 5}), 0.75, "alpha 3"),
    ("transformer", config("text_encoder", r=64, lora_alpha=1) | {
        "lora_adapter_metadata": '{"text_encoder.r": 64, "text_encoder.lora_alpha": 1, "transformer.r": 4, '
                                 '"transformer.lora_alpha": "8"}'}, 2.0, "alpha 8 from its metadata"),
    ("", config(r=4, lora_alpha=6.0), 1.5, "alpha 6 from its metadata"),
    ("diffusion_model", config("transformer", r=4, lora_alpha=-4), -1.0, "alpha -4 from its metadata"),
    ("transformer", {"lora_adapter_metadata": '{"transformer": {"r": 4, "lora_alpha": 2}}'}, 0.5, "alpha 2 from"),
    ("transformer", config("transformer", r=4, lora_alpha=4, alpha_pattern=None, init_lora_weights="gaussian"), 1.0,
     "alpha 4 from"),
    ("transformer", config("transformer_2", r=4, lora_alpha=16), 1.0, "no alpha, so taken as the rank."),
    ("transformer", {"ss_network_alpha": "1", "ss_network_dim": "4"}, 1.0,
     "ss_network_alpha 1 in its metadata is left alone"),
    ("transformer", {"lora_alpha": "2"}, 1.0, "lora_alpha 2 in its metadata is left alone"),
    ("transformer", {"lora_adapter_metadata": "null"}, 1.0, "no alpha"),
])
def test_alpha_in_the_metadata(prefix: str, metadata: dict[str, str], factor: float, said: str,
                               bases: Callable[[str], Base], tmp_path: Path) -> None:
    parts, trained = lora(torch.Size((768, 256)), None)
    check_factor(write(parts, tmp_path / "a.safetensors", f"{prefix}.{LINEAR}".lstrip("."), metadata), factor, said,
                 bases("fp16"), trained)


def check_factor(file: LoraFile, factor: float, said: str, base: Base, trained: Trained) -> None:
    expert, report = base.with_lora(file)
    weight = base.weights[f"{LINEAR}.weight"]
    assert off(weight_in_use(expert, LINEAR) - weight, factor * (trained(weight.double()) - weight.double())) < 1e-5
    assert said in report


def test_tensors_go_before_the_metadata(bases: Callable[[str], Base], tmp_path: Path) -> None:
    parts, trained = lora(torch.Size((768, 256)), 2.0)
    for told, said in ((16, "alpha 2 from its tensors; its metadata says alpha 16, but the tensors count."),
                       (2, "alpha 2 from its tensors.")):
        file = write(parts, tmp_path / "a.safetensors", metadata=config("transformer", r=4, lora_alpha=told))
        check_factor(file, 1.0, said, bases("fp16"), trained)


def test_each_expert_has_its_own_alpha(bases: Callable[[str], Base], tmp_path: Path) -> None:
    parts, trained = lora(torch.Size((768, 256)), None)
    path, base = tmp_path / "both.safetensors", bases("fp16")
    settings = {"transformer.r": 4, "transformer.lora_alpha": 16, "transformer_2.r": 4, "transformer_2.lora_alpha": 2}
    save_file({f"{component}.{LINEAR}.{part}": tensor.clone() for component in ("transformer", "transformer_2")
               for part, tensor in parts.items()}, path, {"lora_adapter_metadata": json.dumps(settings)})
    model, report = apply_loras(Wan22Model(base.expert, base.expert), [opened(path, expert="both")])
    weight = base.weights[f"{LINEAR}.weight"]
    change = trained(weight.double()) - weight.double()
    assert off(weight_in_use(model.high, LINEAR) - weight, 4.0 * change) < 1e-5
    assert off(weight_in_use(model.low, LINEAR) - weight, 0.5 * change) < 1e-5
    assert "alpha 16 from" in report[0] and "alpha 2 from" in report[1]


def test_a_part_for_both_experts_beside_one_for_one(bases: Callable[[str], Base], tmp_path: Path) -> None:
    parts, _ = lora(torch.Size((768, 256)))
    path = tmp_path / "a.safetensors"
    save_file({f"{prefix}.{part}": tensor.clone() for prefix in (f"diffusion_model.{LINEAR}", f"transformer_2.{LINEAR}")
               for part, tensor in parts.items()}, path)
    with pytest.raises(CheckpointError, match=r"two patches for blocks\.0\.ffn\.0 of the low-noise expert"):
        apply_loras(Wan22Model(bases("fp16").expert, bases("fp16").expert), [opened(path, expert="both")])


SIDECAR = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["net.0.proj"], "bias": "none"}


@pytest.mark.parametrize("name, others, settings, factor, said", [
    ("style.safetensors", (), SIDECAR, 4.0, "alpha 16 from adapter_config.json"),
    ("adapter_model.safetensors", ("b.safetensors",), SIDECAR, 4.0, "alpha 16 from adapter_config.json"),
    ("style.safetensors", ("b.safetensors",), SIDECAR, 4.0, "alpha 16 from adapter_config.json"),
    ("style.safetensors", ("b.safetensors",), SIDECAR | {"r": 16}, 1.0, "adapter_config.json beside it is of another"),
    ("style.safetensors", ("b.safetensors",), SIDECAR | {"target_modules": ["q_proj"]}, 1.0, "is of another file"),
    ("style.safetensors", ("b.safetensors",), {"peft_type": "PREFIX_TUNING"}, 1.0, "no alpha"),
])
def test_alpha_beside_the_file(name: str, others: tuple[str, ...], settings: dict[str, Any], factor: float, said: str,
                               bases: Callable[[str], Base], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    for other in others:
        (tmp_path / other).touch()
    parts, trained = lora(torch.Size((768, 256)), None)
    check_factor(write(parts, tmp_path / name, f"base_model.model.{LINEAR}"), factor, said, bases("fp16"), trained)


@pytest.mark.parametrize("kind, settings, factor", [
    ("LoHa", {"peft_type": "LOHA", "r": 4, "alpha": 12}, -4.0),
    ("LoKr, whole", {"peft_type": "LOKR", "r": 4, "alpha": 2}, 0.5),
])
def test_alpha_of_pefts_loha_and_lokr(kind: str, settings: dict[str, Any], factor: float, bases: Callable[[str], Base],
                                      tmp_path: Path) -> None:
    """PEFT's LoKr is multiplied by alpha / r even where both factors are whole."""
    parts, trained = TYPES[kind][1](torch.Size((768, 256)))
    del parts["alpha"]
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    check_factor(write(parts, tmp_path / "adapter_model.safetensors"), factor, "alpha", bases("fp16"), trained)


@pytest.mark.parametrize("settings, said", [
    ({"r": 8}, r"says rank 8 for blocks\.0\.ffn\.0, whose matrices have rank 4"),
    ({"use_dora": True}, "is a DoRA by its metadata .* no magnitudes"),
    ({"init_lora_weights": "pissa_niter_4"}, "trained on base weights that it changed.*path_initial_model"),
    ({"peft_type": "ADALORA"}, "is of a ADALORA adapter"),
    ({"lora_alpha": "many"}, "has the value 'many' for lora_alpha, where a number is wanted"),
    ({"lora_alpha": float("nan")}, "has the value 'nan'"),
    ({"r": 0}, "has the rank 0"),
    ({"alpha_pattern": [1]}, "has a alpha_pattern that is not an object"),
    ({"alpha_pattern": {"(a+)+$": 1}}, r"has the regular expression .* which is not read here"),
    ({"alpha_pattern": {"a?" * 50 + "a" * 50: 1}}, "regular expression"),
])
def test_settings_that_cannot_be_followed(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    parts, _ = lora(torch.Size((768, 256)), None)
    metadata = config("transformer", **{"r": 4, "lora_alpha": 16} | settings)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors .*{said}"):
        write(parts, tmp_path / "a.safetensors", metadata=metadata)


def test_metadata_and_the_file_beside_it_contradict(tmp_path: Path) -> None:
    parts, _ = lora(torch.Size((768, 256)), None)
    (tmp_path / "adapter_config.json").write_text(json.dumps(SIDECAR))
    path = tmp_path / "a.safetensors"
    write(parts, path, metadata=config("transformer", r=4, lora_alpha=16))
    with pytest.raises(CheckpointError, match=r"has contradicting alphas.*is 1 and 4 by its metadata"):
        write(parts, path, metadata=config("transformer", r=4, lora_alpha=4))
    (tmp_path / "b.safetensors").touch()
    assert opened(path).facts.alphas.where == "its metadata", "what lies beside several files may be of another"
    (tmp_path / "b.safetensors").unlink()
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"has adapter_config\.json beside it that is not JSON"):
        opened(path)
    assert probe_lora(read_header(path)).alphas.where == "its metadata", "a file from a link has nothing beside it"


# ---- what is refused or said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts, said", [
    ({"oft_R.weight": (8, 120)}, "oft_R"), ({"boft_R": (1, 8, 4, 4), "boft_s": (768, 1)}, "boft_R"),
    ({"ia3_l": (768, 1)}, "ia3_l"), ({"weight": (768,), "on_input": ()}, "on_input"),
    ({"vera_lambda_b": (768,)}, "vera_lambda_b"), ({"hira_A": (4, 256), "hira_B": (768, 4)}, "hira_A"),
    ({"lora_A": (4, 256), "lora_B": (768, 4), "lora_E": (4, 1)}, "lora_E"),
    ({"hada_w1_a": (768, 4), "hada_w1_b": (4, 256), "hada_w2_a": (768, 4), "hada_w2_b": (4, 256), "scalar": ()},
     "scalar"), ({"p_layer.weight": (768, 4), "q_layer.weight": (4, 256)}, "p_layer"),
])
def test_other_adapter_types_are_refused_by_name(parts: dict[str, tuple[int, ...]], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"is of an adapter type that is not applied here: it has {said}"):
        write({part: numbers(*shape) for part, shape in parts.items()}, tmp_path / "a.safetensors")


@pytest.mark.parametrize("parts, said", [
    ({"oft_blocks": (48, 16, 16), "lora_up.weight": (768, 4), "lora_down.weight": (4, 256)}, "do not go together"),
    ({"oft_blocks": (48, 16, 16), "dora_scale": (768, 1)}, "has dora_scale beside oft_blocks"),
    ({"set_weight": (768, 256), "diff": (768, 256)}, "has diff beside set_weight"),
    ({"oft_blocks": (48, 16, 16), "rescale": (5, 1)}, r"has rescale of shape \[5, 1\] for 768 outputs"),
])
def test_parts_that_do_not_go_together(parts: dict[str, tuple[int, ...]], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        write({part: numbers(*shape) for part, shape in parts.items()}, tmp_path / "a.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_nan_and_infinite_numbers(bad: float, dtype: torch.dtype, bases: Callable[[str], Base], tmp_path: Path) -> None:
    for part in ("lora_down.weight", "alpha"):
        parts = {name: tensor.to(dtype) for name, tensor in lora(torch.Size((768, 256)))[0].items()}
        parts[part].view(-1)[-1] = bad
        with pytest.raises(CheckpointError, match=rf"a\.safetensors is damaged: its tensor .*\.{part} holds NaN"):
            bases("fp16").with_lora(write(parts, tmp_path / "a.safetensors"))


@pytest.mark.parametrize("kind, zero", [
    ("LoRA", "lora_up.weight"), ("LoRA", "lora_down.weight"), ("LoRA", "alpha"), ("LoHa", "hada_w2_a"),
    ("LoKr", "lokr_w1_a"), ("LoKr", "lokr_w2_b"), ("OFT", "oft_blocks"), ("LoKr, whole", "lokr_w2"),
])
def test_a_lora_that_changes_nothing(kind: str, zero: str, bases: Callable[[str], Base], tmp_path: Path) -> None:
    parts, _ = TYPES[kind][1](torch.Size((768, 256)))
    said = "; it changes nothing, because all its changes are zero."
    assert said not in bases("fp16").with_lora(write(parts, tmp_path / "a.safetensors"))[1]
    parts[zero] = torch.zeros_like(parts[zero])
    expert, report = bases("fp16").with_lora(write(parts, tmp_path / "a.safetensors"))
    assert report.endswith(said)
    weight = bases("fp16").weights[f"{LINEAR}.weight"]
    assert torch.allclose(weight_in_use(expert, LINEAR), weight, atol=1e-7)
    assert "it changes nothing at scale 0." in bases("fp16").with_lora(
        write(TYPES[kind][1](torch.Size((768, 256)))[0], tmp_path / "a.safetensors", scale=0.0))[1]
