"""ComfyUI's own modules in the process of the tests and benchmarks: for what no HTTP request shows."""

from __future__ import annotations

import ast
import logging
import sys
from typing import TYPE_CHECKING

from devtools.environment import local_comfyui

if TYPE_CHECKING:
    from pipeline.models.host import Host


def import_comfyui(*options: str) -> None:
    """Make ComfyUI importable behind this repository (both have a module `nodes`), and pipeline.host with it.

    options: of its command line, read at the first call alone; without any it runs on the CPU.
    """
    comfyui = str(local_comfyui())
    if comfyui not in sys.path:
        sys.path.append(comfyui)
        import comfy.options

        comfy.options.enable_args_parsing()
        words, sys.argv = sys.argv, ["main.py", *(options or ("--cpu",))]
        try:
            import comfy.cli_args
        finally:
            sys.argv = words


def start_comfyui(*options: str) -> None:
    """Import ComfyUI, and choose allocator and memory manager as its main.py does; call it before torch is imported.

    main.py itself would import the server and all that it needs. So of its statements those on comfy_aimdo, the
    allocator of dynamic VRAM, are taken out and run.
    """
    import_comfyui(*options)
    import cuda_malloc  # noqa: F401 - sets PyTorch's allocator
    from comfy.cli_args import args, enables_dynamic_vram

    main = ast.parse((local_comfyui() / "main.py").read_text("utf-8"))
    on_aimdo = [statement for statement in main.body if "comfy_aimdo" in ast.unparse(statement)]
    with_torch = [statement for statement in on_aimdo if "model_management" in ast.unparse(statement)]
    names = {"args": args, "enables_dynamic_vram": enables_dynamic_vram, "logging": logging,
             "console_log_level": "WARNING"}

    def run(statements: list[ast.stmt]) -> None:
        exec(compile(ast.Module(statements, []), "main.py", "exec"), names)

    run([statement for statement in on_aimdo if statement not in with_torch])
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    names["comfy"] = comfy
    run(with_torch)


def comfy_host() -> Host:
    """Return the host that ComfyUI is."""
    import_comfyui()
    from pipeline.host.ops import comfy_host as new_host

    return new_host()
