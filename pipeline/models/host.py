"""What the pipeline needs of the program that hosts it, and a host of plain torch.

ComfyUI's is comfy_host.py. The plain one serves tests, benchmarks and scripts: no memory manager, one device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import nn

from ..checkpoint.quantised import QuantisedWeight, Weight, check_unpackable, dequantise
from .attention import Attend


@dataclass(frozen=True)
class Patch:
    """A change to one parameter of a module while it runs."""

    parameter: str
    scale: float
    change: Any
    """The host's own, from `Host.read_lora`."""
    lora: Any = None
    """The request.Lora that the change is of."""


class Resident(Protocol):
    """A module that the host may move between devices."""

    module: nn.Module
    device: torch.device
    """Where the module runs once it is loaded."""

    def bring(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """Make the module ready to run with that much memory for activations and with these patches, no others, in
        force; return the device to run on."""

    def ran_out(self, error: RuntimeError) -> bool:
        """Whether an error of a run means that the device's memory has run out."""

    def make_room(self, activation_bytes: int) -> None:
        """Free that much more on the device, after it has run out."""

    def free(self) -> int:
        """Bytes of the device's memory that a pass may use now."""


class WeightTaker(Protocol):
    """A linear layer that keeps its weights as they are stored."""

    def take(self, weight: Weight, bias: torch.Tensor | None) -> None:
        """Make the weight (out, in), packed or not, and the bias (out,) the layer's own."""


Targets = Mapping[str, tuple[str, tuple[int, ...]]]
"""Original name of a module -> the parameter of it that a LoRA changes, and its shape; of a bias, with `.bias`."""
ReadLora = Callable[[dict[str, torch.Tensor], Targets], tuple[dict[str, Any], set[str]]]
"""(a LoRA's tensors, what there is to change) -> (parameter -> change, names of the tensors used).

The tensors are named as ComfyUI writes them, `blocks.0.self_attn.q.lora_up.weight`, without a prefix. Raises
ValueError, with a clause, for a change that cannot be worked out for its parameter.
"""


@dataclass(frozen=True)
class Host:
    """How modules are built and where they live."""

    linear: Callable[[torch.dtype], Callable[..., WeightTaker]]
    """Dtype to calculate in -> class of the transformer's linear layers, built as torch.nn.Linear is."""
    compute_dtype: Callable[[torch.dtype], torch.dtype]
    """Dtype of the weights -> dtype to calculate in."""
    adopt: Callable[[nn.Module], Resident]
    """Hand a module over to the host's memory management."""
    clip: Callable[[Path], Any] | None = None
    """The host's own loader of a UMT5-XXL file, with the two calls of `prompt.TextEncoder`; None: it has none."""
    read_lora: ReadLora | None = None
    """None: the host applies no LoRAs."""
    attend: Attend | None = None
    """Attention of the experts; None: diffusers' own, PyTorch's scaled_dot_product_attention."""


@dataclass
class PlainResident:
    """A module that stays where it is."""

    module: nn.Module
    device: torch.device

    def bring(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """See Resident; there are never patches, because this host reads no LoRAs."""
        return self.device

    def ran_out(self, error: RuntimeError) -> bool:
        """What PyTorch itself calls so."""
        return isinstance(error, torch.OutOfMemoryError)

    def make_room(self, activation_bytes: int) -> None:
        """The module stays where it is; only what PyTorch holds in reserve can be given back."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def free(self) -> int:
        """See Resident; of the RAM where the device is no GPU of NVIDIA's or AMD's."""
        if self.device.type != "cuda":
            return psutil.virtual_memory().available
        reserve = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + reserve


class CastingLinear(nn.Linear):
    """A linear layer that keeps its weights as stored and casts or unpacks them for each call."""

    packed: QuantisedWeight | None = None

    def take(self, weight: Weight, bias: torch.Tensor | None) -> None:
        """See WeightTaker. Raises CheckpointError for a packed format that only ComfyUI reads."""
        if isinstance(weight, QuantisedWeight):
            check_unpackable(weight)
            self.packed, self.weight = weight, None
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
        if self.packed is not None:
            scales = {name: fn(scale) for name, scale in self.packed.scales.items()}
            self.packed = replace(self.packed, data=fn(self.packed.data), scales=scales)
        return super()._apply(fn, recurse)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = dequantise(self.weight if self.packed is None else self.packed, x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, weight, bias)


def plain_host(device: str = "cpu") -> Host:
    """Everything on one device, in float32 on a CPU and in the weights' own dtype elsewhere."""
    where = torch.device(device)

    def adopt(module: nn.Module) -> Resident:
        return PlainResident(module.to(where), where)

    return Host(linear=lambda compute: CastingLinear, adopt=adopt,
                compute_dtype=lambda stored: torch.float32 if where.type == "cpu" else stored)
