"""ComfyUI's own modules in the tests' process, on the CPU: for what no HTTP request shows."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

from devtools.environment import local_comfyui

ROOM = ("files", "loras", "memory", "node", "ops", "remote", "runs", "sampling", "video")


def comfy_host() -> SimpleNamespace:
    """Everything of pipeline/host, with ComfyUI importable behind this repository (both have a module `nodes`)."""
    comfyui = str(local_comfyui())
    if comfyui not in sys.path:
        sys.path.append(comfyui)
        from comfy.cli_args import args

        args.cpu = True
    modules = [importlib.import_module(f"pipeline.host.{name}") for name in ROOM]
    return SimpleNamespace(**{key: value for module in modules for key, value in vars(module).items()})
