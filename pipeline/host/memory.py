"""Put modules under ComfyUI's memory manager, which counts, moves and evicts them."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_management
import comfy.model_patcher
import torch

from ..checkpoint.ram import available_ram
from ..models.patches import Patch, PatchedModule

MPS_OUT_OF_MEMORY = ("MPS backend out of memory", "Invalid buffer size")
"""Beginnings of PyTorch's messages (aten/src/ATen/mps/MPSAllocator.mm)."""


class _Holder(torch.nn.Module):
    """Wraps a diffusers model for ComfyUI's patcher, which sets `.device`, a read-only property of diffusers'."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.device = None


class PatchedResident:
    """A Resident under ComfyUI's memory manager."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            _Holder(module),
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        self.device = self.patcher.load_device
        self._strays = [m for m in module.modules() if not hasattr(m, "comfy_cast_weights")]
        self._streams = any(hasattr(m, "comfy_cast_weights") for m in module.modules())
        self._patched = PatchedModule(module)

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """See Resident. Other models are evicted where needed.

        A module with ComfyUI's linear layers is loaded as far as it fits, and streams the rest from RAM; what patches
        put beside the layers stays on the device, uncounted by ComfyUI, until `remove_patches` is called.
        """
        device = self.patcher.load_device
        own = sum(p.nbytes for m in self._strays for p in m.parameters(recurse=False)) if self._streams else 0
        beside = self._patched.bytes_to_place(patches, device)
        comfy.model_management.load_models_gpu([self.patcher], memory_required=activation_bytes + own + beside,
                                               force_full_load=not self._streams)
        # ComfyUI streams its own layers only; everything else has to be on the device.
        for module in self._strays:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(device)
        self._patched.put(patches, device)
        return device

    def remove_patches(self) -> None:
        """See Resident."""
        self._patched.put((), self.device)

    def is_oom(self, error: RuntimeError) -> bool:
        """See Resident. CUDA can report it late, by another class of error, and Apple's GPUs have no class for it."""
        return comfy.model_management.is_oom(error) or str(error).startswith(MPS_OUT_OF_MEMORY)

    def free_memory(self, activation_bytes: int) -> None:
        """See Resident. This module's own layers are unloaded too, and stream from then on."""
        device = self.patcher.load_device
        comfy.model_management.soft_empty_cache()
        comfy.model_management.free_memory(activation_bytes, device)
        if self._streams and not comfy.model_management.is_device_cpu(device):
            self.patcher.partially_unload(self.patcher.offload_device, activation_bytes)

    def available_bytes(self) -> int:
        """See Resident. PyTorch's cached memory counts as available."""
        return _free_memory(self.patcher.load_device)


def device_memory() -> tuple[int, int]:
    """Return the device's free and total memory in bytes; of the RAM when there is no GPU."""
    device = comfy.model_management.get_torch_device()
    return _free_memory(device), comfy.model_management.get_total_memory(device)


def _free_memory(device: torch.device) -> int:
    """Return ComfyUI's figure in bytes; before ComfyUI 0.35 that of the RAM is the machine's, also in a container."""
    free = comfy.model_management.get_free_memory(device)
    return min(free, available_ram()) if comfy.model_management.is_device_cpu(device) else free
