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
"""What the oldest diffusers and transformers import, of which .venv may have other versions or none."""

NEWEST = ("diffusers==0.42.1",)
"""Newer than requirements.txt installs: people have it for other packs. Of the rest .venv has the newest."""

ENGINE = ("tests/checkpoint/test_layouts.py", "tests/models/test_text_encoder.py", "tests/sampling/test_sampler.py",
          "tests/sampling/test_schedule.py", "tests/video/test_mp4_writer.py")


def folders_of_other_versions() -> Iterator[Path]:
    """Yield folders for PYTHONPATH, each made when it is asked for: the oldest versions, then the newest."""
    oldest = (*oldest_versions(ROOT / "requirements.txt", OLDEST), *BESIDE_OLDEST)
    for folder, packages in ((CACHE / "oldest", oldest), (CACHE / "newest", NEWEST)):
        fill(folder, packages)
        say(f"Testing the engine on {', '.join(packages)}")
        yield folder


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
