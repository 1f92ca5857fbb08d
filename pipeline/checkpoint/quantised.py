"""Quantised matrices: find them among a file's tensors, keep them packed, and dequantise them.

In safetensors files, ComfyUI's first layout (`scale_weight` beside each weight and one `scaled_fp8` marker; Kijai's
files have it too) and its present one (`weight_scale` and `comfy_quant` beside each weight, or `_quantization_metadata`
in the header) are read as by ComfyUI's comfy/utils.py `convert_old_quants` and comfy/ops.py `_load_quantized_module`.
An fp8 weight without a scale is an ordinary tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .errors import CheckpointError
from .scales import NAMES, block_sizes

GGUF, SCALES_OF_ITS_OWN = "gguf", "scales"
"""Formats that are not ComfyUI's; the second is a matrix with one scale a matrix, row or block (scales.py)."""
FP8_FORMATS = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
SCALES = ("weight_scale", "weight_scale_2", "input_scale", "pre_quant_scale", "weight_s_rel", "weight_s_channel",
          "weight_codebook", "weight_zeros")
"""Tensors beside a quantised weight, by ComfyUI's present names."""
TWO_IN_A_BYTE = ("nvfp4", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16")
ATTENTION_SETTINGS = "comfy_attention.config"
"""End of the names of tensors of JSON for ComfyUI's own attention kernels. They are dropped: the Host chooses the
attention."""


@dataclass(frozen=True)
class QuantisedWeight:
    """A quantised matrix (out, in), as it is stored.

    `format` is one of ComfyUI's (`float8_e4m3fn`, `int8_tensorwise`, `nvfp4`, ...) or of the two above. `options` is
    the rest of its `comfy_quant` entry, or `{"type": "Q4_K"}` for GGUF, whose `data` holds the bytes of each row.
    """

    format: str
    data: torch.Tensor
    shape: tuple[int, ...]
    scales: dict[str, torch.Tensor] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


Weight = torch.Tensor | QuantisedWeight


def dequantise(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix in a dtype to compute in. Raises CheckpointError for a format that only ComfyUI dequantises."""
    if isinstance(weight, torch.Tensor):
        return weight.to(dtype)
    check_unpackable(weight)
    if weight.format == GGUF:
        return dequantise_gguf(weight.data, weight.options["type"], dtype).view(weight.shape)
    if weight.format == SCALES_OF_ITS_OWN:
        return dequantise_scaled(weight.data, weight.scales["weight_scale"], dtype)
    return (weight.data.float() * weight.scales["weight_scale"].float()).to(dtype)


def dequantise_scaled(data: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return (out, in), each number times the scale of its matrix, row or block."""
    rows, columns = block_sizes(tuple(data.shape), tuple(scale.shape))
    scale = scale.float().reshape(-(-data.shape[0] // rows), -1).repeat_interleave(rows, 0)[:data.shape[0]]
    if scale.shape[1] > 1:
        scale = scale.repeat_interleave(columns, 1)[:, :data.shape[1]]
    return (data.float() * scale).to(dtype)


def stored_dtype(weight: Weight) -> torch.dtype:
    """Return the dtype from which a host chooses the compute dtype; bfloat16, Wan's own, for integers."""
    quantised = isinstance(weight, QuantisedWeight)
    return FP8_FORMATS.get(weight.format, torch.bfloat16) if quantised else weight.dtype


def check_unpackable(weight: QuantisedWeight) -> None:
    """Raise CheckpointError for a format that only ComfyUI dequantises."""
    if weight.format not in (GGUF, SCALES_OF_ITS_OWN, *FP8_FORMATS):
        raise CheckpointError(f"{weight.format} weights can only be used inside ComfyUI. Choose an fp16, fp8 or GGUF "
                              "file.")


def dequantise_gguf(data: torch.Tensor, kind: str, dtype: torch.dtype) -> torch.Tensor:
    """Dequantise GGUF blocks (any number of bytes) to a flat tensor, by the arithmetic of diffusers' GGUF loader."""
    import gguf
    from diffusers.quantizers.gguf.utils import dequantize_functions

    ggml_type = gguf.GGMLQuantizationType[kind]
    values, size = gguf.GGML_QUANT_SIZES[ggml_type]
    return dequantize_functions[ggml_type](data.reshape(-1, size), values, size, dtype).to(dtype).flatten()


def find_quantised(tensors: dict[str, torch.Tensor], metadata: dict[str, str], prefix: str = "") -> dict[str, Weight]:
    """Return a file's tensors, with each quantised weight and its scales as one QuantisedWeight.

    `prefix`: what the names in the metadata have before those of the tensors. Scales without a weight stay, so that the
    check for unknown names reports them. Raises CheckpointError when the quantisation settings cannot be read.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(ATTENTION_SETTINGS)}
    try:
        formats = _legacy_formats(tensors) or _header_formats(metadata, prefix)
        formats |= _entries(tensors)
        names = {layer: str(options["format"]) for layer, options in formats.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"The quantisation settings in the file cannot be read ({error!r}): it is damaged. Fetch "
                              "it again, or choose another.") from error
    for layer in _own_scales(tensors, formats):
        formats[layer], names[layer] = {"format": SCALES_OF_ITS_OWN}, SCALES_OF_ITS_OWN
    found: dict[str, Weight] = dict(tensors)
    for layer, options in formats.items():
        if f"{layer}.weight" not in found:
            continue
        data = found.pop(f"{layer}.weight")
        scales = {name: found.pop(f"{layer}.{name}") for name in SCALES if f"{layer}.{name}" in found}
        name, rest = names[layer], {k: v for k, v in options.items() if k != "format"}
        if name in FP8_FORMATS and data.dtype == torch.uint8:  # written by a tool without fp8
            data = data.view(FP8_FORMATS[name])
        scale = scales.get("weight_scale")
        if name in FP8_FORMATS and (scale is None or scale.numel() != 1):
            if scale is None or block_sizes(tuple(data.shape), tuple(scale.shape)) is None:
                raise CheckpointError(f"{layer} is quantised as {name} but has no scale that fits. "
                                      "Fetch the file again, or choose another.")
            name = SCALES_OF_ITS_OWN
        columns = data.shape[1] * (2 if name in TWO_IN_A_BYTE else 1)
        found[f"{layer}.weight"] = QuantisedWeight(name, data, (data.shape[0], columns), scales, rest)
    return found


def _own_scales(tensors: dict[str, torch.Tensor], formats: Mapping[str, Any]) -> list[str]:
    """Return the layers, besides those of `formats`, with scales that fit; their names become the present ones."""
    found = []
    for key in [key for key in tensors if key.endswith(NAMES)]:
        layer = key.removesuffix(next(ending for ending in NAMES if key.endswith(ending)))
        weight = tensors.get(f"{layer}.weight")
        if layer in formats or weight is None or weight.dtype not in (*FP8_FORMATS.values(), torch.int8):
            continue
        if block_sizes(tuple(weight.shape), tuple(tensors[key].shape)):
            tensors[f"{layer}.weight_scale"] = tensors.pop(key)
            found.append(layer)
    return found


def _legacy_formats(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Rename the tensors of the first layout to the present names, and return the format of each layer."""
    marker = next((k for k in tensors if k == "scaled_fp8" or k.endswith(".scaled_fp8")), None)
    # A marker of two elements asks for matrix products in full precision.
    full_precision = marker is not None and tensors.pop(marker).numel() == 2
    formats = {}
    for key in [k for k in tensors if k.endswith(".scale_weight")]:
        layer = key.removesuffix(".scale_weight")
        dtype = tensors[f"{layer}.weight"].dtype if f"{layer}.weight" in tensors else None
        name = next((n for n, d in FP8_FORMATS.items() if d == dtype), None)
        if name is None:
            continue
        tensors[f"{layer}.weight_scale"] = tensors.pop(key)
        if f"{layer}.scale_input" in tensors:
            scale = tensors.pop(f"{layer}.scale_input")
            if scale.item() != 1.0:
                tensors[f"{layer}.input_scale"] = scale
        formats[layer] = {"format": name} | ({"full_precision_matrix_mult": True} if full_precision else {})
    return formats


def _header_formats(metadata: dict[str, str], prefix: str) -> dict[str, dict[str, Any]]:
    """Return the formats in the file's header: {"layers": {layer: {"format": ..., ...}}}."""
    layers = json.loads(metadata.get("_quantization_metadata", '{"layers": {}}'))["layers"]
    return {layer.removeprefix(prefix): options for layer, options in layers.items()}


def _entries(tensors: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Remove the `comfy_quant` tensors and return their JSON by layer."""
    keys = [k for k in tensors if k.endswith(".comfy_quant")]
    return {key.removesuffix(".comfy_quant"): json.loads(tensors.pop(key).numpy().tobytes()) for key in keys}
