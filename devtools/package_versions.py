"""Other versions of packages than those installed, to test the engine on: the oldest that requirements.txt allows, and
the newest that the pack is known to run on.

A folder of packages put first on PYTHONPATH stands before those of .venv. It holds no dependencies: they are in .venv.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .paths import CACHE, ROOT, VENV_PYTHON
from .processes import run_logged
from .terminal import say

OLDEST = ("diffusers", "transformers", "gguf", "av", "cryptography")
BESIDE_OLDEST = ("huggingface-hub==0.36.2", "tokenizers==0.21.4", "httpx==0.28.1", "httpcore==1.0.9", "h11==0.16.0")
"""Packages that the oldest diffusers and transformers import; .venv may have other versions of them, or none."""

NEWEST = ("diffusers==0.42.1", "comfy-kitchen==0.2.40", "comfy-aimdo==0.6.0", "comfyui-frontend-package==1.58.1")
"""Newer than what requirements.txt and the pinned ComfyUI install: people have them for other packs, and with a newer
ComfyUI. Of the rest .venv has the newest."""

ENGINE = ("tests/checkpoint/test_layouts.py", "tests/models/test_text_encoder.py", "tests/sampling/test_sampler.py",
          "tests/sampling/test_schedule.py", "tests/video/test_mp4_writer.py")
NEWEST_COMFYUI = (
    "tests/host", "tests/nodes/routes/test_settings.py::test_a_switch_and_the_keyboards_focus_are_seen",
    "tests/nodes/routes/test_settings.py::test_new_mp4_nodes_start_as_settled_and_loaded_ones_do_not",
    "tests/web/test_jobs.py::test_nothing_yet",
    "tests/web/test_jobs.py::test_a_bought_clip_from_the_run_button_to_the_file",
    "tests/web/test_workflows.py::test_it_opens_without_a_fault_and_its_twin_is_what_run_sends",
    "tests/web/test_workflows.py::test_the_blueprint_makes_a_clip_that_plays")
"""Tests of ComfyUI's quantised layers, memory manager and frontend: a few that say much."""


def folders_of_other_versions() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield folders for PYTHONPATH, each made when it is asked for, with the tests to run: the oldest versions, then
    the newest."""
    oldest = (*oldest_versions(ROOT / "requirements.txt", OLDEST), *BESIDE_OLDEST)
    for folder, packages, tests in ((CACHE / "oldest", oldest, ENGINE),
                                    (CACHE / "newest", NEWEST, ENGINE + NEWEST_COMFYUI)):
        fill(folder, packages)
        say(f"Testing on {', '.join(packages)}")
        yield folder, tests


def oldest_versions(requirements: Path, names: Sequence[str]) -> list[str]:
    """Return `name==version` of the lower bounds that a requirements file gives these packages."""
    lines = [line.partition("#")[0].strip() for line in requirements.read_text("utf-8").splitlines()]
    bounds = dict(line.partition(",")[0].split(">=") for line in lines if ">=" in line)
    return [f"{name}=={bounds[name]}" for name in names]


def fill(folder: Path, packages: Sequence[str]) -> None:
    """Install packages into a folder, unless it holds just these already."""
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()
    stamp = folder / ".complete"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    run_logged([str(VENV_PYTHON), "-m", "pip", "install", "--no-deps", "--target", str(folder), *packages],
               f"Installing {folder.name} packages")
    stamp.write_text(digest)
