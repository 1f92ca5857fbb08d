"""The interface between the models and the program that hosts them, and a host of plain torch.

ComfyUI's host is `comfy_host` in host/ops.py. The plain host serves tests, benchmarks and scripts: one device, no
memory manager.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..checkpoint.mmap import MapFile, map_read_only
from ..checkpoint.quantised import QuantisedWeight, Weight, check_unpackable, dequantise
from ..checkpoint.ram import available_ram
from .attention import Attend
from .patches import Beside, Patch, PatchedLayer, PatchedModule


class Resident(Protocol):
    """A module that the host may move between devices."""

    module: nn.Module
    device: torch.device
    """The device on which the module runs once it is loaded."""

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """Load the module, with that much memory free for activations, and return its device.

        Exactly these patches are in force afterwards. Call it before every use: the host may evict the module.
        """

    def remove_patches(self) -> None:
        """Put no patch in force, and free what they hold on the device. Call it after the last use."""

    def is_oom(self, error: RuntimeError) -> bool:
        """True when an error of a run means that the device is out of memory."""

    def free_memory(self, activation_bytes: int) -> None:
        """Free that much more memory on the device, after it has run out."""

    def available_bytes(self) -> int:
        """Return the bytes of the device's memory that a pass may use now."""


class HostLinear(PatchedLayer, Protocol):
    """A linear layer of the host's that keeps its weight as it is stored."""

    def assign_weight(self, weight: Weight, bias: torch.Tensor | None) -> None:
        """Set the weight (out, in), quantised or not, and the bias (out,)."""


@dataclass(frozen=True)
class Host:
    """A host's ways to build modules and to manage their memory."""

    linear: Callable[[torch.dtype], Callable[..., HostLinear]]
    """Compute dtype -> class of the transformer's linear layers, with the constructor of torch.nn.Linear."""
    compute_dtype: Callable[[torch.dtype], torch.dtype]
    """Dtype of the weights -> compute dtype."""
    adopt: Callable[[nn.Module], Resident]
    """Puts a module under the host's memory management."""
    map_file: MapFile = map_read_only
    """Maps a weight file of a model that may be larger than the device's memory."""
    clip: Callable[[Path], Any] | None = None
    """The host's loader of a UMT5-XXL file, whose result has the two calls of `TextEncoder`; None: it has none."""
    attend: Attend | None = None
    """The experts' attention; None: diffusers', which is PyTorch's scaled_dot_product_attention."""


@dataclass
class PlainResident:
    """A module that stays on its device."""

    module: nn.Module
    device: torch.device

    def __post_init__(self) -> None:
        self._patched = PatchedModule(self.module)

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """See Resident."""
        self._patched.put(patches, self.device)
        return self.device

    def remove_patches(self) -> None:
        """See Resident."""
        self._patched.put((), self.device)

    def is_oom(self, error: RuntimeError) -> bool:
        """True for PyTorch's own out-of-memory error."""
        return isinstance(error, torch.OutOfMemoryError)

    def free_memory(self, activation_bytes: int) -> None:
        """Release PyTorch's cached memory; the module itself stays."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def available_bytes(self) -> int:
        """See Resident. On devices other than CUDA or ROCm GPUs: the available RAM."""
        if self.device.type != "cuda":
            return available_ram()
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + cached


class CastingLinear(nn.Linear):
    """A linear layer that keeps its weight as stored, and casts or dequantises it for each call."""

    quantised: QuantisedWeight | None = None
    beside: Beside | None = None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, compute_dtype: torch.dtype) -> None:
        super().__init__(in_features, out_features, bias)
        self.compute_dtype = compute_dtype
        self.weight_function: list[Callable[[torch.Tensor], torch.Tensor]] = []

    def assign_weight(self, weight: Weight, bias: torch.Tensor | None) -> None:
        """See HostLinear. Raises CheckpointError for a format that only ComfyUI dequantises."""
        if isinstance(weight, QuantisedWeight):
            check_unpackable(weight)
            self.quantised, self.weight = weight, None
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        if self.quantised is not None:
            scales = {name: fn(scale) for name, scale in self.quantised.scales.items()}
            self.quantised = replace(self.quantised, data=fn(self.quantised.data), scales=scales)
        return super()._apply(fn, recurse)

    @torch.compiler.disable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = dequantise(self.weight if self.quantised is None else self.quantised, x.dtype)
        for change in self.weight_function:
            weight = change(weight)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        output = nn.functional.linear(x, weight, bias)
        return output if self.beside is None else self.beside.add_to(output, x)


def plain_host(device: str = "cpu") -> Host:
    """Return a host that keeps everything on one device: float32 on the CPU, elsewhere the weights' own dtype.

    fp8, in which nothing can be added, is calculated in float16, as by ComfyUI.
    """
    target = torch.device(device)

    def adopt(module: nn.Module) -> Resident:
        return PlainResident(module.to(target), target)

    def compute_dtype(stored: torch.dtype) -> torch.dtype:
        if target.type == "cpu":
            return torch.float32
        return stored if stored.itemsize > 1 else torch.float16

    return Host(linear=lambda compute: partial(CastingLinear, compute_dtype=compute), adopt=adopt,
                compute_dtype=compute_dtype)
