"""How weights are stored: plainly in a dtype, or quantised, and then in which of the ways in use.

Legacy fp8 with scales (`scale_weight`, `scaled_fp8`): comfy/utils.py `convert_old_quants` of ComfyUI 0.30. Its present
form, a `comfy_quant` tensor of JSON beside each weight or `_quantization_metadata` in the header: comfy/ops.py.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .header import FileHeader, Header

DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2"}
"""safetensors' names of dtypes -> those in file names and on widgets."""
QUANT_MARK, QUANT_METADATA = ".comfy_quant", "_quantization_metadata"
SCALE_MARKS = (".weight_scale", ".weight_scale_inv")


class SchemeFamily(str, Enum):
    """The ways of storing weights. OTHER has scales that no loader here knows."""

    PLAIN = "plain"
    FP8_SCALED = "fp8_scaled"
    COMFY_QUANT = "comfy_quant"
    GGUF = "gguf"
    OTHER = "other"


@dataclass(frozen=True)
class Scheme:
    """A way of storing weights, and its name: fp16, fp8_e4m3fn_scaled, int8_tensorwise+convrot, nvfp4, Q4_K, ..."""

    family: SchemeFamily
    name: str


def _most(counted: Counter[str]) -> str:
    """The name that holds most; `empty` when there is none."""
    return counted.most_common(1)[0][0] if counted else "empty"


def _dominant_dtype(header: Header) -> str:
    counted: Counter[str] = Counter()
    for name, dtype in header.dtypes.items():
        counted[dtype] += math.prod(header.shapes[name])
    return _most(counted)


def _format_name(layer: dict[str, Any]) -> str:
    params = layer.get("params")
    rotated = layer.get("convrot", params.get("convrot") if isinstance(params, dict) else None)
    return str(layer.get("format")) + ("+convrot" if rotated else "")


def _quantised_layers(header: FileHeader) -> Iterator[dict[str, Any]]:
    """The settings of the quantised layers: one of each pair of a length of JSON and a dtype of weights.

    Layers of the same settings agree in both, and a file has hundreds of layers, whose settings lie far apart.
    """
    if QUANT_METADATA in header.metadata:
        yield from json.loads(header.metadata[QUANT_METADATA])["layers"].values()
        return
    marks = [name for name in header.shapes if name.endswith(QUANT_MARK)]
    kinds = {(header.shapes[name], header.dtypes.get(name.removesuffix(QUANT_MARK) + ".weight")): name
             for name in marks}
    with header.path.open("rb") as file:
        for shape, dtype in kinds:
            file.seek(header.offsets[kinds[shape, dtype]])
            yield json.loads(file.read(math.prod(shape)))


def _comfy_quant(header: FileHeader) -> Scheme:
    try:
        counted = Counter(_format_name(layer) for layer in _quantised_layers(header))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Scheme(SchemeFamily.OTHER, "damaged quantisation settings")
    return Scheme(SchemeFamily.COMFY_QUANT, ", ".join(name for name, _ in counted.most_common()))


def scheme_of(header: Header, *, gguf: bool) -> Scheme:
    """The scheme of most of the weights. Reads a few dozen bytes of JSON where a file keeps its settings in tensors."""
    dominant = _dominant_dtype(header)
    if gguf:
        return Scheme(SchemeFamily.GGUF, dominant)
    quantised = QUANT_METADATA in header.metadata or any(name.endswith(QUANT_MARK) for name in header.shapes)
    if quantised and isinstance(header, FileHeader):
        return _comfy_quant(header)
    name = DTYPE_NAMES.get(dominant, dominant.lower())
    if any(key.endswith((".scale_weight", "scaled_fp8")) for key in header.shapes):
        return Scheme(SchemeFamily.FP8_SCALED, f"{name}_scaled")
    if any(key.endswith(SCALE_MARKS) for key in header.shapes):
        return Scheme(SchemeFamily.OTHER, f"{name} with scales of its own")
    return Scheme(SchemeFamily.PLAIN, name)
