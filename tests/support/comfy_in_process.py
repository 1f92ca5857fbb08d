"""ComfyUI's own modules in the tests' process, on the CPU: for what no HTTP request shows."""

from __future__ import annotations

import sys
from types import ModuleType

from devtools.environment import local_comfyui


def comfy_host() -> ModuleType:
    """pipeline.comfy_host, with ComfyUI importable behind this repository (both have a module `nodes`)."""
    comfyui = str(local_comfyui())
    if comfyui not in sys.path:
        sys.path.append(comfyui)
        from comfy.cli_args import args

        args.cpu = True
    from pipeline import comfy_host

    return comfy_host
