"""Writes an expert's weights in every layout that people's files have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn


def _packed(weights: Weights) -> list[str]:
    """Names of the layers that quantised files pack: the linear ones of the blocks."""
    return [k.removesuffix(".weight") for k, v in weights.items() if k.startswith("blocks.") and v.ndim == 2
            and k.endswith(".weight")]


def _scaled(weights: Weights, dtype: torch.dtype, scale_name: str) -> Weights:
    """Every packed layer in fp8, its largest value at fp8's largest, beside the scale that brings it back."""
    found = dict(weights)
    for layer in _packed(weights):
        scale = weights[f"{layer}.weight"].float().abs().max() / torch.finfo(dtype).max
        found[f"{layer}.weight"] = (weights[f"{layer}.weight"].float() / scale).to(dtype)
        found[f"{layer}.{scale_name}"] = scale
    return found


def _entry(**options: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(options).encode()), dtype=torch.uint8)


def plain(dtype: torch.dtype) -> Callable[[Weights, Path], None]:
    return lambda weights, path: save_file({k: v.to(dtype) for k, v in weights.items()}, path)


def prefixed(weights: Weights, path: Path) -> None:
    save_file({f"model.diffusion_model.{k}": v for k, v in weights.items()}, path)


def fp8_unscaled(weights: Weights, path: Path) -> None:
    """As Kijai's first files: the packed layers cast, the rest as it was."""
    layers = {f"{layer}.weight" for layer in _packed(weights)}
    save_file({k: v.to(FP8) if k in layers else v for k, v in weights.items()}, path)


def fp8_legacy(weights: Weights, path: Path) -> None:
    """Comfy-Org's fp8_scaled of 2025, and Kijai's: scale_weight beside each weight, an empty marker."""
    save_file({**_scaled(weights, FP8, "scale_weight"), "scaled_fp8": torch.empty(0, dtype=FP8)}, path)


def fp8_legacy_full_precision(weights: Weights, path: Path) -> None:
    """Two numbers in the marker, and scales of the layers' inputs."""
    found = _scaled(weights, FP8, "scale_weight")
    found |= {f"{layer}.scale_input": torch.tensor(1.0) for layer in _packed(weights)}
    save_file({**found, "scaled_fp8": torch.zeros(2, dtype=FP8)}, path)


def fp8_legacy_prefixed(weights: Weights, path: Path) -> None:
    found = {**_scaled(weights, FP8, "scale_weight"), "scaled_fp8": torch.empty(0, dtype=FP8)}
    save_file({f"model.diffusion_model.{k}": v for k, v in found.items()}, path)


def fp8_comfy(dtype: torch.dtype) -> Callable[[Weights, Path], None]:
    """The present layout: weight_scale and comfy_quant beside each weight."""

    def write(weights: Weights, path: Path) -> None:
        found = _scaled(weights, dtype, "weight_scale")
        name = str(dtype).removeprefix("torch.")
        save_file({**found, **{f"{layer}.comfy_quant": _entry(format=name) for layer in _packed(weights)}}, path)

    return write


def fp8_in_header(weights: Weights, path: Path) -> None:
    """The present layout with its formats in the header."""
    layers = {layer: {"format": "float8_e4m3fn"} for layer in _packed(weights)}
    save_file(_scaled(weights, FP8, "weight_scale"), path,
              metadata={"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})})


def by_comfy(layout: str, entry: dict[str, object], **options: object) -> Callable[[Weights, Path], None]:
    """Packed by ComfyUI's own quantiser of that layout."""

    def write(weights: Weights, path: Path) -> None:
        from comfy.quant_ops import QuantizedTensor

        found = dict(weights)
        for layer in _packed(weights):
            packed = QuantizedTensor.from_float(found.pop(f"{layer}.weight").float(), layout, **options)
            found |= {k: v.contiguous() for k, v in packed.state_dict(f"{layer}.weight").items()}
            found[f"{layer}.comfy_quant"] = _entry(**entry)
        save_file(found, path)

    return write


def diffusers_folder(shards: int) -> Callable[[Weights, Path], None]:
    """As save_pretrained writes it, in that many shards."""

    def write(weights: Weights, path: Path) -> None:
        from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

        path.mkdir()
        (path / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}), "utf-8")
        renamed = convert_wan_transformer_to_diffusers(dict(weights))
        if shards == 1:
            save_file(renamed, path / "diffusion_pytorch_model.safetensors")
            return
        place = {k: f"diffusion_pytorch_model-{i % shards + 1:05}-of-{shards:05}.safetensors"
                 for i, k in enumerate(sorted(renamed))}
        for name in set(place.values()):
            save_file({k: renamed[k] for k, n in place.items() if n == name}, path / name)
        index = {"metadata": {}, "weight_map": place}
        (path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), "utf-8")

    return write
