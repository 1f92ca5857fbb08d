"""Put modules under ComfyUI's memory manager, which counts, moves and evicts them."""

from __future__ import annotations

from collections.abc import Sequence

import comfy.memory_management
import comfy.model_management
import comfy.model_patcher
import comfy_aimdo.model_vbar
import torch

from ..checkpoint.ram import available_ram
from ..models.patches import Patch, PatchedModule
from .prefetch import BlockPrefetch

OUT_OF_MEMORY = ("MPS backend out of memory", "Invalid buffer size", "VRAM grow failed", "Fault failed: 2")
"""Beginnings of messages that have no class of their own: PyTorch's (aten/src/ATen/mps/MPSAllocator.mm), and those of
ComfyUI's allocator (comfy_aimdo, vram_buffer.py and model_vbar.py)."""


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
        self._room = 0
        self._prefetch = BlockPrefetch(module, self.device) if self._streams and self.patcher.is_dynamic() else None

    def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
        """See Resident. Other models are evicted where needed.

        A module with ComfyUI's linear layers is loaded as far as it fits, and streams the rest from RAM; what patches
        put beside the layers stays on the device, uncounted by ComfyUI, until `remove_patches` is called.
        """
        device = self.patcher.load_device
        need = activation_bytes + self._patched.bytes_to_place(patches, device)
        if not self._is_ready(need):
            self._load(need)
        self._patched.put(patches, device)
        return device

    def _is_ready(self, need: int) -> bool:
        """Return True when this module was prepared for this node's run with that room, and none was since.

        Dynamic VRAM fetches weights as they are used, so that it needs nothing more; ComfyUI would prepare it anew, in
        50 ms for a 14B expert and with a line in its log.
        """
        newest, model = comfy.model_management.current_loaded_models[:1], self.patcher.model
        return (self.patcher.is_dynamic() and [loaded.model for loaded in newest] == [self.patcher]
                and need <= self._room and model.model_loaded_weight_memory > 0
                and model.dynamic_pins[self.device].get("active", False))

    def _load(self, need: int) -> None:
        own = sum(p.nbytes for m in self._strays for p in m.parameters(recurse=False)) if self._streams else 0
        comfy.model_management.load_models_gpu([self.patcher], memory_required=need + own,
                                               force_full_load=not self._streams)
        self._room = need
        # ComfyUI streams its own layers only; everything else has to be on the device.
        for module in self._strays:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data = tensor.data.to(self.device)

    def remove_patches(self) -> None:
        """See Resident. The next run fetches ahead again, also after one that ran out of memory."""
        self._patched.put((), self.device)
        if self._prefetch is not None:
            self._prefetch.enabled = True

    def is_oom(self, error: RuntimeError) -> bool:
        """See Resident. CUDA can report it late, by another class of error, and some have no class for it."""
        return comfy.model_management.is_oom(error) or str(error).startswith(OUT_OF_MEMORY)

    def free_memory(self, activation_bytes: int) -> None:
        """See Resident. This module's own layers are unloaded too, and stream from then on, one after the other."""
        device = self.patcher.load_device
        if self._prefetch is not None:
            self._prefetch.enabled = False
        comfy.model_management.soft_empty_cache()
        comfy.model_management.free_memory(activation_bytes, device)
        if self._streams and not comfy.model_management.is_device_cpu(device):
            self.patcher.partially_unload(self.patcher.offload_device, activation_bytes)

    def available_bytes(self) -> int:
        """See Resident. PyTorch's cached memory counts as available, what --reserve-vram keeps for others does not."""
        device = self.patcher.load_device
        kept = 0 if comfy.model_management.is_device_cpu(device) else comfy.model_management.extra_reserved_memory()
        return max(0, _free_memory(device) - int(kept))


def device_memory() -> tuple[int, int]:
    """Return the device's free and total memory in bytes; of the RAM when there is no GPU."""
    device = comfy.model_management.get_torch_device()
    return _free_memory(device), comfy.model_management.get_total_memory(device)


def _free_memory(device: torch.device) -> int:
    """Return ComfyUI's figure in bytes, with the weights that give way by themselves under dynamic VRAM.

    Before ComfyUI 0.35 that of the RAM is the machine's, also in a container.
    """
    free = comfy.model_management.get_free_memory(device)
    if comfy.model_management.is_device_cpu(device):
        return min(free, available_ram())
    return free + (comfy_aimdo.model_vbar.vbars_analyze(device.index) if comfy.memory_management.aimdo_enabled else 0)
