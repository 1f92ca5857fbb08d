"""Bring a block's weights to the GPU while the block before it computes.

For models under ComfyUI's dynamic VRAM, by its own queue (comfy/model_prefetch.py), as ComfyUI's models use it in their
loops over their blocks. Without it each layer sends for its weights when it runs.
"""

from __future__ import annotations

from typing import Any

import comfy.model_prefetch
import torch

PINNED = 2
"""Bit of a page that is in use (comfy_aimdo/model_vbar.py, get_residency)."""


class BlockPrefetch:
    """Hooks on a model: a pass has a queue of its blocks, and each block sends for all its weights before it runs.

    The copies go by a stream of their own, and the CPU runs ahead of the GPU, so that they are done while the GPU is at
    the block before. Where there are no such streams (--disable-async-offload) ComfyUI makes no queue.

    Weights that find no room go through ComfyUI's two buffers, each of a block then: 1.4 GB together for a 14B expert
    in 2 bytes, instead of 0.3 GB for two layers. `enabled` is for when that is too much.

    Between passes it holds no module: a circle of references would keep the memory of a model that is gone.
    """

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self.enabled = True
        self._device = device
        self._queue: list[Any] | None = None
        module.register_forward_pre_hook(self._begin)
        module.register_forward_hook(self._end, always_call=True)
        for block in repeated_blocks(module):
            block.register_forward_pre_hook(self._fetch)

    def _begin(self, module: torch.nn.Module, inputs: object) -> None:
        if self._queue is not None:  # Stop, a BaseException, ends a pass without its hooks
            self._end(module, inputs, None)
        options = {"prefetch_dynamic_vbars": self.enabled}
        self._queue = comfy.model_prefetch.make_prefetch_queue(repeated_blocks(module), self._device, options)

    def _fetch(self, block: torch.nn.Module, inputs: object) -> None:
        comfy.model_prefetch.prefetch_queue_pop(self._queue, self._device, block)

    def _end(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        """Let go of the last block's weights; after a pass that failed, and so has no output, of all."""
        if output is None:
            release_weights(module)
        self._queue = None
        comfy.model_prefetch.cleanup_prefetch_queues()


def repeated_blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the blocks that a model of diffusers or transformers runs one after the other; none of other modules."""
    names = getattr(module, "_no_split_modules", None) or ()
    return [block for block in module.modules() if type(block).__name__ in names]


def release_weights(module: torch.nn.Module) -> None:
    """Let go of all weights that the layers of a module hold on the GPU for use.

    ComfyUI's layers do so after each use, but not when they fail. Their memory could not be taken away any more, and
    the next pass would read what was fetched for the failed one where other weights may be by then.
    """
    layers = [layer for layer in module.modules() if hasattr(layer, "_v")]
    for layer in layers:
        layer.__dict__.pop("_prefetch", None)
    for vbar in {layer._v[0] for layer in layers}:
        while any(page & PINNED for page in vbar.get_residency()):
            vbar.unpin(vbar.base_addr, vbar.max_size)
