"""In which numbers a training step computes: bfloat16 where the CPU has instructions for it, otherwise float32.

A CPU without them works bfloat16 out in software, 20 to 40 times slower than float32.
"""

from __future__ import annotations

from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
FLAGS = ("amx_bf16", "avx512_bf16", " bf16 ")  # x86, and Arm's name for it


def has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 itself; no where that cannot be asked, as on macOS and Windows."""
    return CPUINFO.exists() and any(flag in CPUINFO.read_text() for flag in FLAGS)


def training_precision() -> torch.autocast:
    """Return the context that a training step runs in."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())
