"""The interface between the models and the program that hosts them, and a host of plain torch.

ComfyUI's host is `comfy_host` in host/ops.py. The plain host serves tests, benchmarks and scripts: one device, no
memory manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..checkpoint.quantised import QuantisedWeight, Weight, check_unpackable, dequantise
from ..checkpoint.ram import available_ram
from .attention import Attend


@dataclass(frozen=True)
class Patch:
    """A change to one parameter of a module while it runs."""

    parameter: str
    scale: float
    change: Any
    """An object of the host's, from `Host.read_lora`."""
    lora: Any = None
    """The request.Lora that the change is of."""


class Resident(Protocol):
    """A module that the host may move between devices."""

    module: nn.Module
    device: torch.device
    """Where the module runs once it is loaded."""

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """Load the module, with that much memory free for activations, and return its device.

        Exactly these patches are in force afterwards. Call it before every use: the host may evict the module.
        """

    def is_oom(self, error: RuntimeError) -> bool:
        """True when an error of a run means that the device is out of memory."""

    def free_memory(self, activation_bytes: int) -> None:
        """Free that much more memory on the device, after it has run out."""

    def available_bytes(self) -> int:
        """Return the bytes of the device's memory that a pass may use now."""


class HostLinear(Protocol):
    """A linear layer of the host's that keeps its weight as it is stored."""

    def assign_weight(self, weight: Weight, bias: torch.Tensor | None) -> None:
        """Set the weight (out, in), quantised or not, and the bias (out,)."""


Targets = Mapping[str, tuple[str, tuple[int, ...]]]
"""Original name of a module, or of a bias with `.bias` -> name and shape of the parameter that a LoRA changes."""
ReadLora = Callable[[Mapping[str, Mapping[str, torch.Tensor]], Targets, Mapping[str, float]],
                    tuple[dict[str, Any], set[str]]]
"""(a LoRA's tensors by module and part, targets, alpha / rank of modules without an alpha tensor) -> (parameter ->
change, names of the tensors used, each `module.part`).

Parts have ComfyUI's names, such as `lora_up.weight`. Raises ValueError, with a clause, for a change that does not fit
its parameter.
"""


@dataclass(frozen=True)
class Host:
    """How a host builds modules and manages their memory."""

    linear: Callable[[torch.dtype], Callable[..., HostLinear]]
    """Compute dtype -> class of the transformer's linear layers, with the constructor of torch.nn.Linear."""
    compute_dtype: Callable[[torch.dtype], torch.dtype]
    """Dtype of the weights -> compute dtype."""
    adopt: Callable[[nn.Module], Resident]
    """Puts a module under the host's memory management."""
    clip: Callable[[Path], Any] | None = None
    """The host's loader of a UMT5-XXL file, whose result has the two calls of `TextEncoder`; None: it has none."""
    read_lora: ReadLora | None = None
    """Reads a LoRA's tensors as changes; None: the host applies no LoRAs."""
    attend: Attend | None = None
    """The experts' attention; None: diffusers', which is PyTorch's scaled_dot_product_attention."""


@dataclass
class PlainResident:
    """A module that stays on its device."""

    module: nn.Module
    device: torch.device

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """See Resident. There are never patches, because this host reads no LoRAs."""
        return self.device

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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = dequantise(self.weight if self.quantised is None else self.quantised, x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, weight, bias)


def plain_host(device: str = "cpu") -> Host:
    """Return a host that keeps everything on one device: float32 on the CPU, elsewhere the weights' own dtype."""
    target = torch.device(device)

    def adopt(module: nn.Module) -> Resident:
        return PlainResident(module.to(target), target)

    return Host(linear=lambda compute: CastingLinear, adopt=adopt,
                compute_dtype=lambda stored: torch.float32 if target.type == "cpu" else stored)
