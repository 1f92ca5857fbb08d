"""ComfyUI's dynamic VRAM, its default on NVIDIA, on the CPU.

All is ComfyUI's and comfy_aimdo's own Python, on the library of tests/support/aimdo_in_memory.py. Weights come to a
pretended GPU page by page, as they are used, and pages are taken away again.

What passes here is not proved on a GPU where it depends on real page faults and their time, on streams that run beside
each other (here every copy is done at once), on pinned memory (here it is counted only), or on PyTorch's allocator
taking pages away while a layer runs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from tests.support.aimdo_in_memory import Library
from tests.support.comfy_in_process import import_comfyui
from tests.support.pretended_gpu import GPU, pretended_gpu

MEMORY = 8 << 30
"""Bytes that the GPU says it has; the library alone decides what fits."""


@dataclass(eq=False)
class Stream:
    """A stream on which everything is done at once."""

    name: str
    events: list[tuple[str, ...]]

    def wait_stream(self, other: Stream) -> None:
        self.events.append(("wait", self.name, other.name))

    def synchronize(self) -> None:
        pass

    def __enter__(self) -> Stream:
        self.events.append(("copy", self.name))
        return self

    def __exit__(self, *error: object) -> None:
        pass


@contextmanager
def dynamic_vram(library: Library, pinned: int = 64 << 20) -> Iterator[Library]:
    """Run a block with ComfyUI as it is on an NVIDIA GPU, but for its numbers.

    They are as on the CPU: float32, without fp8 matrix products. `pinned`: bytes of RAM that may be pinned. Models of
    the block are not to be used outside of it.
    """
    import_comfyui()
    import comfy.ldm.modules.attention as attention
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.model_prefetch
    import comfy_aimdo.control
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_mmap
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    import comfy_aimdo.vram_buffer

    def free(device: torch.device | None = None, torch_free_too: bool = False) -> int | tuple[int, int]:
        left = MEMORY - library.vbars_analyze(library.get_devctx(0), False)
        return (left, 0) if torch_free_too else left

    computing, *others = (Stream(name, library.events) for name in ("computing", "first", "second"))
    changes = {
        **{(module, "lib"): library for module in (comfy_aimdo.control, comfy_aimdo.host_buffer, comfy_aimdo.model_mmap,
                                                   comfy_aimdo.model_vbar, comfy_aimdo.vram_buffer)},
        (comfy_aimdo.control, "devctxs"): [library.get_devctx(0)],
        (comfy_aimdo.torch, "get_tensor_from_raw_ptr"): library.tensor_at,
        (torch.cuda, "cudart"): lambda: library,
        (comfy.memory_management, "aimdo_enabled"): True,
        (comfy.model_patcher, "CoreModelPatcher"): comfy.model_patcher.ModelPatcherDynamic,
        (attention, "optimized_attention"): attention.attention_pytorch,
        (management, "cpu_state"): management.CPUState.GPU,
        (management, "vram_state"): management.VRAMState.NORMAL_VRAM,
        (management, "get_torch_device"): lambda: GPU,
        (management, "get_total_memory"): lambda device=None: MEMORY,
        (management, "get_free_memory"): free,
        **{(management, name): lambda *_, **__: False for name in (
            "should_use_fp16", "should_use_bf16", "supports_fp8_compute", "supports_nvfp4_compute",
            "supports_mxfp8_compute")},
        (management, "current_loaded_models"): [],
        (management, "NUM_STREAMS"): len(others),
        (management, "STREAMS"): {GPU: others},
        (management, "stream_counters"): {},
        (management, "current_stream"): lambda device: computing,
        (management, "STREAM_AIMDO_CAST_BUFFERS"): {},
        (management, "LARGEST_AIMDO_CASTED_WEIGHT"): (None, 0),
        (management, "DEFAULT_AIMDO_CAST_BUFFER_RESERVATION_SIZE"): 64 << 20,
        (management, "MAX_PINNED_MEMORY"): pinned,
        (management, "TOTAL_PINNED_MEMORY"): 0,
    }
    with pytest.MonkeyPatch.context() as patch, pretended_gpu():
        for (module, name), value in changes.items():
            patch.setattr(module, name, value)
        try:
            yield library
        finally:
            management.free_memory(1e30, GPU)
            management.reset_cast_buffers()
            comfy.model_prefetch.cleanup_prefetch_queues()
            let_go(comfy_aimdo.model_vbar.ModelVBAR, comfy_aimdo.host_buffer.HostBuffer,
                   comfy_aimdo.model_mmap.ModelMMAP, comfy_aimdo.vram_buffer.VRAMBuffer)


def let_go(*kinds: type) -> None:
    """Give memory back to the library that it is from; whatever is freed later goes to another one, which crashes."""
    for found in gc.get_objects():
        if type(found) in kinds:
            found.__del__()
            vars(found).clear()  # not again when Python frees it

