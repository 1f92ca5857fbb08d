"""The quantised formats that this ComfyUI reads."""

from __future__ import annotations


def readable_formats() -> frozenset[str]:
    """Return ComfyUI's names of them, as in a file's `comfy_quant` entries. ComfyUI has long imported the module."""
    from comfy.quant_ops import QUANT_ALGOS

    return frozenset(QUANT_ALGOS)
