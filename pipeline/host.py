"""What the pipeline needs of the program that hosts it, and a host of plain torch.

ComfyUI's is in comfy_host.py. The plain one serves tests, benchmarks and scripts: no memory manager, one device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn


class Resident(Protocol):
    """A module that the host may move between devices."""

    module: nn.Module

    def bring(self, activation_bytes: int) -> torch.device:
        """Make the module ready to run with that much memory for activations; return the device to run on."""


@dataclass(frozen=True)
class Host:
    """How modules are built and where they live."""

    linear: type[nn.Linear]
    """Class of the transformer blocks' linear layers; constructed as torch.nn.Linear is."""
    compute_dtype: Callable[[torch.dtype], torch.dtype]
    """Dtype of the weights -> dtype to calculate in."""
    adopt: Callable[[nn.Module], Resident]
    """Hand a module over to the host's memory management."""


@dataclass
class PlainResident:
    """A module that stays where it is."""

    module: nn.Module
    device: torch.device

    def bring(self, activation_bytes: int) -> torch.device:
        return self.device


class CastingLinear(nn.Linear):
    """A linear layer that keeps its weights as stored and casts them for each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.weight.to(x.dtype), bias)


def plain_host(device: str = "cpu") -> Host:
    """Everything on one device, in float32 on a CPU and in the weights' own dtype elsewhere."""
    where = torch.device(device)

    def adopt(module: nn.Module) -> Resident:
        return PlainResident(module.to(where), where)

    return Host(linear=CastingLinear, adopt=adopt,
                compute_dtype=lambda stored: torch.float32 if where.type == "cpu" else stored)
