"""Set up a virtual environment, ComfyUI, and the packages of both."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .fetch import COMFYUI_VERSION, fetch_comfyui
from .paths import CACHE, ROOT, VENV, VENV_PYTHON
from .processes import run_logged, succeeds
from .terminal import DevError, say

# The three must match each other. A build for another device (2.11.0+cpu, say) that is already there is kept.
TORCH_TRIO = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")


def find_comfyui(root: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the ComfyUI that the user has: named by COMFYUI_PATH, or the one whose custom_nodes/ holds `root`."""
    named = environ.get("COMFYUI_PATH")
    if named:
        path = Path(named).expanduser().absolute()
        if not (path / "main.py").is_file():
            raise DevError(f"COMFYUI_PATH is {path}, but no ComfyUI is there (it holds no main.py).")
        return path
    around = root.parent.parent
    if root.parent.name == "custom_nodes" and (around / "main.py").is_file():
        return around
    return None


def local_comfyui() -> Path:
    """Return the folder of the ComfyUI to run: the user's own, else that of the fetched one, fetched or not."""
    return find_comfyui(ROOT, os.environ) or CACHE / f"ComfyUI-{COMFYUI_VERSION}"


def prepare(*, tests: bool = False) -> Path:
    """Bring the virtual environment and ComfyUI up to date; return ComfyUI's folder. Quick when nothing changed."""
    comfyui = local_comfyui()
    CACHE.mkdir(exist_ok=True)
    make_venv()
    if not comfyui.is_dir():
        fetch_comfyui(comfyui)
    install("torch", "PyTorch (on Linux 1.8 GB to download, 4.8 GB on disk; elsewhere less: minutes)", TORCH_TRIO)
    # The trio is named again so that no other requirement can move it.
    both = [comfyui / "requirements.txt", ROOT / "requirements.txt"]
    install("runtime", "what ComfyUI and this pack require (0.6 GB to download: a minute or more)", TORCH_TRIO, both)
    if tests:
        install("tests", "what the tests require (70 MB)", TORCH_TRIO, [ROOT / "tests" / "requirements.txt"])
    return comfyui


def make_venv() -> None:
    """Make .venv, or complete one that was left half-made; one that works is never replaced."""
    python = str(VENV_PYTHON)
    if stamp_of("torch").is_file() and VENV_PYTHON.exists():
        return
    if VENV_PYTHON.exists() and (succeeds([python, "-m", "pip", "--version"]) or succeeds([python, "-m", "ensurepip"])):
        return
    say(f"Making a virtual environment in {VENV}")
    run_logged([sys.executable, "-m", "venv", "--clear", str(VENV)], "Making the virtual environment")


def stamp_of(stage: str) -> Path:
    return VENV / f".dev-{stage}"


def install(stage: str, what: str, packages: Sequence[str], files: Sequence[Path] = ()) -> None:
    """Install a stage of packages unless its stamp, written after success only, says that they are in already."""
    digest = hashlib.sha256("\n".join(packages).encode())
    for file in files:
        digest.update(b"\0" + file.read_bytes())
    stamp = stamp_of(stage)
    if stamp.is_file() and stamp.read_text() == digest.hexdigest():
        return
    say(f"Installing {what}")
    wanted = [*packages, *(word for file in files for word in ("-r", str(file)))]
    run_logged([str(VENV_PYTHON), "-m", "pip", "install", *wanted], f"Installing stage '{stage}'")
    stamp.write_text(digest.hexdigest())
