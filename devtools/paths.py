"""Paths of this checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def find_checkout(script: str) -> Path:
    """Return the folder around this package, by its name in the path of the script that runs, if that lies in it.

    A checkout that is linked into custom_nodes/ belongs to the ComfyUI around the link, and only the script's path
    still tells of the link: Python resolves it in the paths of the modules that the script imports.
    """
    around = Path(os.path.abspath(__file__)).parent.parent
    named = Path(os.path.abspath(script)).parent
    return named if named.resolve() == around.resolve() else around


ROOT = find_checkout(sys.argv[0])
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CACHE = ROOT / ".comfyui"
DEMO_WORKFLOW = ROOT / "workflows" / "api" / "image-to-video-demo.json"
CAMERA_WORKFLOW = ROOT / "workflows" / "api" / "camera-path.json"
SAMPLE_PICTURES = ROOT / "workflows" / "input"
