"""An MP4 on a disk that is full or closed, or whose frames come while something else goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.paths import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and mounts of POSIX")
PROGRAM = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pipeline.request import RequestError
from pipeline.video.save import Mp4, save_clip
from pipeline.video.encoding import Encoding
folder = Path(sys.argv[2])
images = torch.rand(40, 256, 256, 3, generator=torch.Generator().manual_seed(0))
try:
    save_clip(Mp4(lambda: folder / "clip.mp4", Encoding(preset="ultrafast")), images, lambda done, total: None)
except RequestError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()))
"""


def run(folder: Path, options: str) -> list[str]:
    """Save a clip of some 3 MB into a file system that is mounted there with these options; the lines it prints."""
    folder.mkdir()
    mount = f'mount -t tmpfs -o {options} none "{folder}" && exec "$@"'
    process = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-c", PROGRAM, str(ROOT),
                              str(folder)], text=True, capture_output=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def _can_mount() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run(
        [unshare, "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"], capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="small file systems cannot be mounted here")


@needs_mounts
@pytest.mark.parametrize("size", ["4k", "600k", "1500k"])
def test_a_disk_that_fills_up(tmp_path: Path, size: str) -> None:
    sentence, files = run(tmp_path / "small", f"size={size}")
    assert "clip.mp4 could not be written: No space left on device. Free some space or choose another" in sentence
    assert sentence.endswith("the frames are still in the graph.")
    assert files == "[]"


@needs_mounts
def test_a_read_only_folder(tmp_path: Path) -> None:
    sentence, files = run(tmp_path / "closed", "ro")
    assert "clip.mp4 could not be written: Read-only file system. Give ComfyUI the right to write there" in sentence
    assert files == "[]"


@needs_mounts
def test_a_disk_with_room(tmp_path: Path) -> None:
    assert run(tmp_path / "big", "size=40m") == ["['clip.mp4']"]
