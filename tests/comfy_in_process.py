"""ComfyUI's own modules in the tests' process, on the CPU: for what no HTTP request shows."""

from __future__ import annotations

import os
import sys
from types import ModuleType

from devtools.environment import find_comfyui
from devtools.fetch import COMFYUI_VERSION
from devtools.paths import CACHE, ROOT


def comfy_host() -> ModuleType:
    """pipeline.comfy_host, with ComfyUI importable behind this repository (both have a module `nodes`)."""
    comfyui = str(find_comfyui(ROOT, os.environ) or CACHE / f"ComfyUI-{COMFYUI_VERSION}")
    if comfyui not in sys.path:
        sys.path.append(comfyui)
        from comfy.cli_args import args

        args.cpu = True
    from pipeline import comfy_host

    return comfy_host
