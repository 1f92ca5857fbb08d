"""Modules under ComfyUI's memory manager, and the loaders of its own that we use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch

from ..host import Host
from .linear import linear


class _Holder(torch.nn.Module):
    """Keeps a diffusers model from ComfyUI's patcher, which sets `.device`: a read-only property of theirs."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.device = None


class PatchedResident:
    """A module that ComfyUI's memory manager counts, moves and evicts."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            _Holder(module),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        self._streams = any(hasattr(m, "comfy_cast_weights") for m in module.modules())
        self._strays = [m for m in module.modules() if not hasattr(m, "comfy_cast_weights")]

    def bring(self, activation_bytes: int) -> torch.device:
        """Load the module; others make room. Needed before every use: it may have been evicted.

        A module of ComfyUI's own linear layers is loaded as far as there is room and streams the rest from RAM.
        """
        device = self.patcher.load_device
        own = sum(p.nbytes for m in self._strays for p in m.parameters(recurse=False)) if self._streams else 0
        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes + own,
                                               force_full_load=not self._streams)
        # ComfyUI streams its own layers only; everything beside them has to be there.
        for module in self._strays:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(device)
        return device

    def make_room(self, activation_bytes: int) -> None:
        """Free that much more on the device, this module's own layers included: they stream from then on."""
        device = self.patcher.load_device
        comfy.model_management.soft_empty_cache()
        comfy.model_management.free_memory(activation_bytes, device)
        if self._streams and not comfy.model_management.is_device_cpu(device):
            self.patcher.partially_unload(self.patcher.offload_device, activation_bytes)


def _compute_dtype(stored: torch.dtype) -> torch.dtype:
    device = comfy.model_management.get_torch_device()
    return comfy.model_management.unet_manual_cast(stored, device) or stored


def _clip(path: Path) -> Any:
    """UMT5-XXL through ComfyUI's own loader, as its CLIPLoader node of type wan does."""
    import comfy.sd

    return comfy.sd.load_clip([str(path)], embedding_directory=folder_paths.get_folder_paths("embeddings"),
                              clip_type=comfy.sd.CLIPType.WAN)


def host() -> Host:
    """ComfyUI's linear layers, dtypes, memory management and UMT5-XXL."""
    return Host(linear=linear, compute_dtype=_compute_dtype, adopt=PatchedResident, clip=_clip)


def memory() -> tuple[int, int]:
    """Bytes of the device's memory, free and in all; of the RAM where there is no GPU."""
    device = comfy.model_management.get_torch_device()
    return comfy.model_management.get_free_memory(device), comfy.model_management.get_total_memory(device)
