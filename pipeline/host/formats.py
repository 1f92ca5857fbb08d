"""The quantised formats that this ComfyUI reads."""

from __future__ import annotations

import sys


def readable_formats() -> frozenset[str] | None:
    """Return ComfyUI's names of them, as in a file's `comfy_quant` entries; None where its models are not loaded.

    ComfyUI has imported the module before it lists any files; importing it here would make start-up without it slow.
    """
    module = sys.modules.get("comfy.quant_ops")
    return None if module is None else frozenset(module.QUANT_ALGOS)
