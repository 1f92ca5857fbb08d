"""The device: what it is, how fast it multiplies and copies, and how much of its memory is in use at most."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import comfy.memory_management
import comfy.model_management
import comfyui_version
import torch
from comfy.ldm.modules import attention

from devtools.paths import ROOT
from pipeline.host.ops import compute_dtype_of

GIB = 2**30
PACKAGES = ("torch", "diffusers", "transformers", "comfy-kitchen", "comfy-aimdo")
PROBE_SECONDS = 0.3
"""Duration of the measurement of a rate."""
SAMPLE_SECONDS = 0.01
"""Between two looks at the memory in use."""


def is_gpu() -> bool:
    """Return whether ComfyUI computes on anything but the CPU."""
    return not comfy.model_management.is_device_cpu(comfy.model_management.get_torch_device())


def synchronize() -> None:
    """Wait until the device has done all that it was given."""
    if is_gpu():
        torch.accelerator.synchronize()


def total_gib() -> float:
    """Return the device's memory; of the RAM on a CPU."""
    return comfy.model_management.get_total_memory(comfy.model_management.get_torch_device()) / GIB


def describe() -> dict[str, str]:
    """Return what the report says of the machine, the programs and the device's rates."""
    device = comfy.model_management.get_torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    chosen = attention.optimized_attention
    fp8 = comfy.model_management.supports_fp8_compute(device)
    found = {
        "device": f"{name}, {total_gib():.1f} GiB",
        "driver": _driver(),
        "CUDA or ROCm": str(torch.version.cuda or torch.version.hip or "none"),
        "packages": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "ComfyUI": f"{comfyui_version.__version__}, dynamic VRAM "
                   f"{'on' if comfy.memory_management.aimdo_enabled else 'off'}, {chosen.__name__}",
        "fp8_scaled weights": f"computed in {str(compute_dtype_of(torch.float8_e4m3fn)).removeprefix('torch.')}, fp8 "
                              f"matrix products {'supported' if fp8 else 'not supported'}",
        "these nodes": _own_version(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} "
                  f"cores, {comfy.model_management.total_ram / 1024:.0f} GiB of RAM",
        "matrix product": f"{_tflops(device):.1f} TFLOP/s in {'bfloat16' if is_gpu() else 'float32'}",
    }
    if is_gpu():
        found["RAM to device"] = f"{_copy_rate(device, True):.1f} GB/s pinned, {_copy_rate(device, False):.1f} pageable"
    return {key: value for key, value in found.items() if value}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _own_version() -> str:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    commit = _printed("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") if (ROOT / ".git").exists() else ""
    return f"{version[1] if version else ''} {commit}".strip()


def _driver() -> str:
    """Return the driver's version where its own program says it, else nothing."""
    return _printed("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def _printed(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _rate(work: Callable[[], Any]) -> float:
    """Return how often a second the device does some work."""
    work()
    synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < PROBE_SECONDS:
        work()
        synchronize()
        count += 1
    return count / (time.perf_counter() - start)


def _tflops(device: torch.device) -> float:
    side, dtype = (8192, torch.bfloat16) if is_gpu() else (512, torch.float32)
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return _rate(lambda: one @ other) * 2 * side**3 / 1e12


def _copy_rate(device: torch.device, pinned: bool) -> float:
    count = 2**28
    there = torch.empty(count, dtype=torch.uint8, device=device)
    here = torch.ones(count, dtype=torch.uint8)
    here = here.pin_memory() if pinned else here
    return _rate(lambda: there.copy_(here, non_blocking=pinned)) * count / 1e9


class PeakMemory:
    """The most memory in use while a block runs, in GiB, without what `hold` took; nothing on a CPU. A context manager.

    `torch`: of PyTorch's tensors, exact. `device`: taken from the device by all programs, what PyTorch keeps for later
    and the weights under ComfyUI's dynamic VRAM included; looked at a hundred times a second.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self._device = comfy.model_management.get_torch_device()
        self._done = threading.Event()
        self._least_free = float("inf")
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type != "cuda":
            return
        self._done.set()
        self._watch.join()
        self._look_once()
        total, held = torch.cuda.mem_get_info(self._device)[1], sum(tensor.nbytes for tensor in _held)
        self.values = {"torch": (torch.cuda.max_memory_allocated(self._device) - held) / GIB,
                       "device": (total - self._least_free - held) / GIB}

    def _look(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._look_once()

    def _look_once(self) -> None:
        self._least_free = min(self._least_free, torch.cuda.mem_get_info(self._device)[0])


def empty_device() -> None:
    """Unload every model and give back what PyTorch keeps."""
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def hold(gib: float) -> None:
    """Take memory of the device that nothing else can use until the process ends."""
    if gib and is_gpu():
        device = comfy.model_management.get_torch_device()
        _held.append(torch.empty(int(gib * GIB), dtype=torch.uint8, device=device))


_held: list[torch.Tensor] = []
