"""Compile the blocks of an expert: torch.compile makes fused kernels of what lies between the products of matrices.

The host's linear layers and its attention are marked with torch.compiler.disable. They run as ever, so that weights
may stream in, be quantised, or have LoRAs beside them, which all change from pass to pass. The blocks of both experts
are of the same classes and shapes, so that all run the same compiled code; another size of clip is compiled for anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ..request import RequestError

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel

SHAPES = 64
"""Sizes of clips and the like, at most, that a function is compiled for before PyTorch runs it uncompiled."""
NEEDED = {"cpu": "a C++ compiler (g++ or clang; on Windows the Visual Studio Build Tools)",
          "cuda": "Triton (on Windows triton-windows) and a C compiler"}
"""Kind of device -> what torch.compile needs for it."""


def compile_blocks(model: WanTransformer3DModel) -> None:
    """Compile the blocks, for each size of clip when it first comes. Call `check_compiler` before.

    What runs before and after a block, as hooks, is not compiled.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    for block in model.blocks:
        block.forward = _forward_of(weakref.ref(block), torch.compile(type(block).forward, dynamic=False))


def _forward_of(block: weakref.ref[torch.nn.Module], compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Return a forward for a block that does not hold it: a circle would keep the weights of a model that is gone."""
    return lambda *inputs, **named: compiled(block(), *inputs, **named)


def check_compiler(device: torch.device) -> None:
    """Raise RequestError when torch.compile does not work on this device here: it is tried out, once."""
    if fault := _fault(device):
        needed = NEEDED.get(device.type)
        remedy = "Switch" if needed is None else f"Install {needed}, or switch"
        raise RequestError(f"compile is on, but nothing can be compiled for this machine's {device.type.upper()}: "
                           f"{fault}. {remedy} compile off.")


@cache
def _fault(device: torch.device) -> str:
    """Compile and run a small function; return the first line of the error, or an empty string."""
    try:
        torch.compile(_scaled, dynamic=False)(torch.zeros(64, 64, device=device))
    except Exception as error:  # of PyTorch, Triton or a compiler: they have no class in common
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    return ""


def _scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x * 2 + 1)
