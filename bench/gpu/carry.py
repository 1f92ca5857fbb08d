"""Pack what a machine with PyTorch and without internet lacks into one file: packages and ComfyUI's source."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devtools.environment import local_comfyui
from devtools.terminal import DevError, say

FILE = "wan22-gpu.tar.xz"
PACKAGES = ("diffusers", "gguf", "torchsde", "trampoline", "comfy-kitchen", "comfy-aimdo")
"""Of what ComfyUI and requirements.txt need, that which comes with few installations of PyTorch."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LEFT_OUT = ("comfy_kitchen/backends/hip/_C.abi3.so",)
"""Large, and for AMD's GPUs alone."""
SOURCE = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "utils", "*.py")
"""Of ComfyUI, what is imported; its tokenizers are not."""
LARGEST_SOURCE = 400_000


def collect(folder: Path, python: str, more: Sequence[str]) -> Path:
    """Write the file into a folder: PACKAGES and `more`, for a Python such as 3.12 on Linux, and ComfyUI's source.

    The versions are those that this Python has. Raises DevError when ComfyUI or a package is missing.
    """
    comfyui = local_comfyui()
    if not comfyui.is_dir():
        raise DevError("There is no ComfyUI to take along. `python3 dev.py demo` fetches one.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = [f"{name}=={importlib.metadata.version(name)}" for name in (*PACKAGES, *more)]
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", scratch,
                   "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms, *wanted]
        if subprocess.run(command).returncode != 0:
            raise DevError("The packages could not be fetched; pip says why above.")
        say("Packing, which takes a minute or two")
        with tarfile.open(folder / FILE, "w:xz") as packed:
            packed.add(scratch, "site", filter=_not_left_out)
            for file in (file for pattern in SOURCE for found in comfyui.glob(pattern) for file in _files(found)):
                packed.add(file, Path("comfyui", file.relative_to(comfyui)))
    return folder / FILE


def _not_left_out(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith(LEFT_OUT) else entry


def _files(found: Path) -> list[Path]:
    """Return the source files in a folder, or the file itself."""
    files = [found] if found.is_file() else [file for file in sorted(found.rglob("*")) if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts and file.stat().st_size < LARGEST_SOURCE]


def unpack(folder: Path, into: Path) -> dict[str, str]:
    """Unpack the file; return the environment variables by which Python and this checkout find what was in it."""
    file = folder / FILE
    if not file.is_file():
        raise DevError(f"There is no {FILE} in the folder of --take. --collect makes it.")
    with tarfile.open(file) as packed:
        packed.extractall(into, filter="data")
    paths = [str(into / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "COMFYUI_PATH": str(into / "comfyui")}
