"""Weight files for ComfyUI's dynamic VRAM, which reads a weight's bytes from the disk straight to the GPU.

It does so for tensors that know their place in their file (comfy/memory_management.py, read_tensor_file_slice_into);
others go through the mapping, page by page, and through a copy in RAM. ComfyUI's loader puts the place on the storage
of each tensor (comfy/utils.py, load_safetensors). Here it is done for every format that this pack reads, GGUF too.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import comfy.memory_management
import torch

from ..checkpoint.mmap import MapFile, MappedFile, map_read_only


def file_mapper() -> MapFile:
    """Return how to map weight files: ComfyUI's way where it runs with dynamic VRAM, else the usual one."""
    return _map_for_slices if comfy.memory_management.aimdo_enabled else map_read_only


def _map_for_slices(path: Path) -> MappedFile:
    """Map a whole file by ComfyUI's allocator, which unmaps pages it has used. Raises RuntimeError when it cannot."""
    from comfy_aimdo.model_mmap import ModelMMAP

    mapped = ModelMMAP(str(path))
    file, lock = mapped.get_file_handle(), threading.Lock()
    whole = (ctypes.c_uint8 * path.stat().st_size).from_address(mapped.get())
    whole.mapped = mapped  # the tensors keep `whole`, and so the mapping
    data = memoryview(whole)

    def mark(tensor: torch.Tensor, offset: int) -> None:
        storage = tensor.untyped_storage()
        storage._comfy_tensor_file_slice = comfy.memory_management.TensorFileSlice(file, lock, offset, tensor.nbytes)
        storage._comfy_tensor_mmap_refs = (mapped, data)

    return MappedFile(data, mark)
