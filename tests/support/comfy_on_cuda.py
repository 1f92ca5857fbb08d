"""ComfyUI's memory manager on a CUDA device that is not there (fake_cuda.py), as it starts on an NVIDIA GPU.

ComfyUI looks for a GPU when it is imported. In the tests' process it found none, so that what it decided then is set
here. Its manager without dynamic VRAM runs (ModelPatcher); transfers are not asynchronous.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from pipeline.models.host import Host
from tests.support.comfy_in_process import comfy_host, import_comfyui
from tests.support.fake_cuda import DEVICE, FakeCuda


@contextmanager
def comfy_on(gpu: FakeCuda) -> Iterator[Host]:
    """Enter the device and give ComfyUI as the host of models on it; afterwards ComfyUI is on the CPU again."""
    import_comfyui()
    import comfy.ldm.modules.attention as attention
    import comfy.model_management as manager

    as_on_nvidia = {"cpu_state": manager.CPUState.GPU, "vram_state": manager.VRAMState.NORMAL_VRAM,
                    "get_torch_device": lambda: DEVICE, "MIN_WEIGHT_MEMORY_RATIO": 0.0, "NUM_STREAMS": 2,
                    "get_offload_stream": lambda device: None, "current_loaded_models": []}
    with ExitStack() as entered:
        entered.enter_context(mock.patch.multiple(manager, **as_on_nvidia))
        entered.enter_context(mock.patch.object(attention, "optimized_attention", attention.attention_pytorch))
        entered.enter_context(gpu)
        yield comfy_host()
        manager.unload_all_models()
