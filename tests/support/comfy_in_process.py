"""ComfyUI's own modules in the tests' process, on the CPU: for what no HTTP request shows."""

from __future__ import annotations

import sys

from devtools.environment import local_comfyui
from pipeline.models.host import Host


def import_comfyui() -> None:
    """Make ComfyUI importable behind this repository (both have a module `nodes`), and pipeline.host with it."""
    comfyui = str(local_comfyui())
    if comfyui not in sys.path:
        sys.path.append(comfyui)
        from comfy.cli_args import args

        args.cpu = True


def comfy_host() -> Host:
    """Return the host that ComfyUI is."""
    import_comfyui()
    from pipeline.host.ops import comfy_host as new_host

    return new_host()
