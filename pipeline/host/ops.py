"""ComfyUI's linear layers, compute dtypes, attention and text encoder, as the Host of the models.

Written for ComfyUI 0.30. Import it when a node runs, not at ComfyUI's start-up: it loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import folder_paths
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedLayout, QuantizedTensor, register_layout_class
from comfy_kitchen.tensor.base import BaseLayoutParams

from ..checkpoint.errors import CheckpointError
from ..checkpoint.quantised import (
    FP8_FORMATS,
    GGUF,
    SCALES_OF_ITS_OWN,
    QuantisedWeight,
    Weight,
    dequantise_gguf,
    dequantise_scaled,
)
from ..models.host import Host
from ..models.patches import Beside
from .attention import usual_attention
from .memory import PatchedResident
from .weight_files import file_mapper


class _GGUFLayout(QuantizedLayout):
    """A layout for GGUF blocks in ComfyUI's QuantizedTensor: paged, moved and patched by LoRAs like its own formats."""

    NAME = "Wan22GGUFLayout"

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """There is no scale: each block holds its own. `kind` is the ggml type's name."""

        kind: str = ""

        def _tensor_fields(self) -> list[str]:
            return []

    @classmethod
    def quantize(cls, tensor: torch.Tensor, **kwargs: Any) -> Any:
        raise NotImplementedError("Tensors cannot be quantised to GGUF.")

    @classmethod
    def dequantize(cls, qdata: torch.Tensor, params: Params) -> torch.Tensor:
        return dequantise_gguf(qdata, params.kind, params.orig_dtype).view(params.orig_shape)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[torch.Tensor, ...]:
        return (qtensor._qdata,)

    @classmethod
    def state_dict_tensors(cls, qdata: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
        return {"": qdata}


class _ScaledLayout(QuantizedLayout):
    """The same for matrices whose scales go by the row or block, which ComfyUI's fp8 layouts do not know."""

    NAME = "Wan22ScaledLayout"

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        """`scale`: (out,), (out, 1) or of blocks (rows, columns)."""

    @classmethod
    def quantize(cls, tensor: torch.Tensor, **kwargs: Any) -> Any:
        raise NotImplementedError("Tensors cannot be quantised by the row or block.")

    @classmethod
    def dequantize(cls, qdata: torch.Tensor, params: Params) -> torch.Tensor:
        return dequantise_scaled(qdata, params.scale, params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[torch.Tensor, ...]:
        return (qtensor._qdata, qtensor._params.scale)

    @classmethod
    def state_dict_tensors(cls, qdata: torch.Tensor, params: Params) -> dict[str, torch.Tensor]:
        return {"": qdata, "_scale": params.scale}


register_layout_class(_GGUFLayout.NAME, _GGUFLayout)
register_layout_class(_ScaledLayout.NAME, _ScaledLayout)


def _linear(compute: torch.dtype) -> type[torch.nn.Module]:
    """Return ComfyUI's linear layer for plain and quantised weights, as a HostLinear with this compute dtype."""
    device = comfy.model_management.get_torch_device()
    native = {"nvfp4": comfy.model_management.supports_nvfp4_compute,
              "mxfp8": comfy.model_management.supports_mxfp8_compute,
              **dict.fromkeys(FP8_FORMATS, comfy.model_management.supports_fp8_compute)}
    apple = comfy.model_management.is_device_mps(device)
    emulated = frozenset(name for name, supported in native.items() if not supported(device))
    return _linear_class(compute, apple, emulated)


@cache
def _linear_class(compute: torch.dtype, apple: bool, emulated: frozenset[str]) -> type[torch.nn.Module]:
    """Return one class for all experts of a kind, so that they share compiled code (models/compile.py)."""

    class Linear(comfy.ops.mixed_precision_ops({}, compute, disabled=set(emulated)).Linear):
        _stored: tuple[torch.nn.Parameter, torch.nn.Parameter | None]
        compute_dtype = compute
        beside: Beside | None = None

        @torch.compiler.disable
        def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
            output = super().forward(x, *args, **options)
            return output if self.beside is None else self.beside.add_to(output, x)

        def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> torch.nn.Module:
            # Moved back to the CPU, the weights are the file's mapped pages again: a copy would fill the RAM.
            if self.weight.device.type != "cpu" and fn(torch.empty(0)).device.type == "cpu":
                self.weight, self.bias = self._stored
                return self
            return super()._apply(fn, recurse)

        def assign_weight(self, weight: Weight, bias: torch.Tensor | None) -> None:
            """See HostLinear. Raises CheckpointError for a format that this ComfyUI or this device cannot use.

            ComfyUI's `set_weight` stays what it is: small layers of a model under dynamic VRAM get theirs by it.
            """
            if apple and _holds_fp8(weight):
                raise CheckpointError("The weights are fp8, which Apple's GPUs cannot use. Choose an fp16 or GGUF "
                                      "file.")
            self._set(weight, bias)
            self._stored = (self.weight, self.bias)

        def _set(self, weight: Weight, bias: torch.Tensor | None) -> None:
            self.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
            if not isinstance(weight, QuantisedWeight):
                self.weight = torch.nn.Parameter(weight, requires_grad=False)
            elif weight.format == GGUF:
                self.quant_format = GGUF
                params = _GGUFLayout.Params(None, compute, weight.shape, weight.options["type"])
                self.weight = torch.nn.Parameter(QuantizedTensor(weight.data, _GGUFLayout.NAME, params),
                                                 requires_grad=False)
            elif weight.format == SCALES_OF_ITS_OWN:
                self.quant_format = SCALES_OF_ITS_OWN
                params = _ScaledLayout.Params(weight.scales["weight_scale"], compute, weight.shape)
                self.weight = torch.nn.Parameter(QuantizedTensor(weight.data, _ScaledLayout.NAME, params),
                                                 requires_grad=False)
            elif weight.format not in QUANT_ALGOS:
                raise CheckpointError(f"This ComfyUI does not read {weight.format} weights. Update it, or choose an "
                                      "fp16, fp8_scaled or GGUF file.")
            else:
                entry = json.dumps({"format": weight.format, **weight.options}).encode()
                self.load_state_dict({"weight": weight.data, **weight.scales,
                                      "comfy_quant": torch.tensor(list(entry), dtype=torch.uint8),
                                      **({} if bias is None else {"bias": bias})}, assign=True)

    return Linear


def _holds_fp8(weight: Weight) -> bool:
    """True when the weight or its scales are fp8, as the scales of MXFP8 and NVFP4 are."""
    if isinstance(weight, QuantisedWeight):
        return weight.format in (*FP8_FORMATS, "mxfp8", "nvfp4") or weight.data.dtype in FP8_FORMATS.values()
    return weight.dtype in FP8_FORMATS.values()


def compute_dtype_of(stored: torch.dtype) -> torch.dtype:
    """Return the dtype that ComfyUI computes in on this device with weights of a dtype."""
    device = comfy.model_management.get_torch_device()
    return comfy.model_management.unet_manual_cast(stored, device) or stored


def _clip(path: Path) -> Any:
    """Load UMT5-XXL by ComfyUI's own loader, as its CLIPLoader node with the type wan."""
    import comfy.sd

    return comfy.sd.load_clip([str(path)], embedding_directory=folder_paths.get_folder_paths("embeddings"),
                              clip_type=comfy.sd.CLIPType.WAN)


def comfy_host() -> Host:
    """Return ComfyUI as the Host of the models."""
    return Host(linear=_linear, compute_dtype=compute_dtype_of, adopt=PatchedResident, map_file=file_mapper(),
                clip=_clip, attend=usual_attention())
