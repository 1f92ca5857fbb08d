"""Write an expert's weights in every layout that people's files have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.full_size import is_linear_of_block

Weights = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn


def _packed(weights: Weights) -> list[str]:
    """Return the names of the layers that quantised files pack."""
    return [k.removesuffix(".weight") for k, v in weights.items() if is_linear_of_block(k, v.shape)]


def _scaled(weights: Weights, dtype: torch.dtype, scale_name: str) -> Weights:
    """Return the weights with every packed layer in fp8, beside the scale that brings it back.

    Its largest value is at fp8's largest.
    """
    found = dict(weights)
    for layer in _packed(weights):
        scale = weights[f"{layer}.weight"].float().abs().max() / torch.finfo(dtype).max
        found[f"{layer}.weight"] = (weights[f"{layer}.weight"].float() / scale).to(dtype)
        found[f"{layer}.{scale_name}"] = scale
    return found


def fp8_by_rows(weights: Weights, path: Path) -> None:
    """As compressed-tensors writes it: a scale a row, without ComfyUI's settings."""
    found = dict(weights)
    for layer in _packed(weights):
        scale = weights[f"{layer}.weight"].float().abs().amax(1, keepdim=True) / torch.finfo(FP8).max
        found[f"{layer}.weight"] = (weights[f"{layer}.weight"].float() / scale).to(FP8)
        found[f"{layer}.weight_scale"] = scale
    save_file(found, path)


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


def w4a8(weights: Weights, path: Path) -> None:
    """The names and shapes of ComfyUI's asym_w4a8_int8 (comfy/ops.py since 0.33), with zeros for values."""
    found = dict(weights)
    for layer in _packed(weights):
        rows, columns = found[f"{layer}.weight"].shape
        found |= {f"{layer}.weight": torch.zeros(rows, columns // 2, dtype=torch.int8),
                  f"{layer}.weight_s_rel": torch.zeros(rows, columns // 16, dtype=FP8),
                  f"{layer}.weight_s_channel": torch.zeros(rows), f"{layer}.weight_codebook": torch.zeros(16),
                  f"{layer}.comfy_quant": _entry(format="asym_w4a8_int8")}
    save_file(found, path)


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


PATCH_EMBEDDINGS = ("5-D", "4-D with the shape in the metadata", "flat")
"""Ways in which converters store the one tensor that has more dimensions than ggml's four."""
SCALE_BYTES = {"Q2_K": (80, 84), "Q3_K": (108, 110), "Q4_K": (0, 4), "Q5_K": (0, 4), "Q6_K": (208, 210)}
"""Places of the float16 scale and, if there is one, the minimum of a block of 256 (ggml, ggml-common.h)."""
BLOCK_SCALE = {"Q2_K": 4e-3, "Q3_K": 1e-3, "Q4_K": 2e-4, "Q5_K": 1e-4, "Q6_K": 2e-5}


def gguf_file(kind: str, patch_embedding: str = "5-D") -> Callable[[Weights, Path], None]:
    """Packed layers in a type that the gguf package can write, the rest in float32 as converters leave it."""

    def write(weights: Weights, path: Path) -> None:
        import gguf

        packed = {f"{layer}.weight" for layer in _packed(weights)}
        ggml_type = gguf.GGMLQuantizationType[kind]
        tensors = {k: (gguf.quants.quantize(v.float().numpy(), ggml_type), ggml_type) if k in packed
                   else (v.float().numpy(), None) for k, v in weights.items()}
        _write_gguf(path, tensors, patch_embedding)

    return write


def random_k_blocks(kind: str, weights: Weights, path: Path) -> Weights:
    """A file whose packed layers are random blocks of a K type, and its weights by the gguf package's own reading."""
    import gguf

    ggml_type = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[ggml_type]
    g = torch.Generator().manual_seed(0)
    begin, end = SCALE_BYTES[kind]
    scales = torch.full(((end - begin) // 2,), BLOCK_SCALE[kind]).half().view(torch.uint8)
    tensors, meant = {}, dict(weights)
    for name, weight in weights.items():
        if name.removesuffix(".weight") not in _packed(weights):
            tensors[name] = (weight.float().numpy(), None)
            continue
        blocks = torch.randint(0, 256, (weight.shape[0], weight.shape[1] // values, size), dtype=torch.uint8,
                               generator=g)
        blocks[..., begin:end] = scales
        data = blocks.flatten(1).numpy()
        tensors[name] = (data, ggml_type)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(data, ggml_type))
    _write_gguf(path, tensors, "5-D")
    return meant


def _write_gguf(path: Path, tensors: dict, patch_embedding: str) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "wan")
    for name, (data, ggml_type) in tensors.items():
        if name == "patch_embedding.weight" and patch_embedding != "5-D":
            if patch_embedding == "flat":
                data = data.reshape(len(data), -1)
            else:
                writer.add_array(f"comfy.gguf.orig_shape.{name}", list(data.shape))
                data = data.reshape(data.shape[0] * data.shape[1], *data.shape[2:])
        writer.add_tensor(name, data, raw_dtype=ggml_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
