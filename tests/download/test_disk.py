"""A disk that is full or closed: told plainly, with what was kept, and nothing half-written is used."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devtools.paths import ROOT
from pipeline.download.cache import link_name
from pipeline.download.fetch import fetch
from pipeline.http.errors import DownloadError
from pipeline.http.secrets import Tokens
from tests.support.hostile_server import QUICK, File, HostileServer, Request

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits and mounts of POSIX")

LINK = "https://a.example/lora.safetensors"
PROGRAM = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pipeline.http.errors import DownloadError
from pipeline.download.fetch import fetch
from pipeline.http import policy as http
from tests.support.loopback import loopback_policy_of
if sys.argv[4]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    print(fetch(sys.argv[2], folder=Path(sys.argv[3]), policy=loopback_policy_of(http, sys.argv[5])))
except DownloadError as error:
    print(error)
    print(*(path.suffix for path in Path(sys.argv[3]).glob("partial/*") if path.suffix != ".lock"))
"""


@pytest.fixture
def served(hostile: HostileServer) -> File:
    served = hostile.routes["/lora.safetensors"] = File(random.Random(0).randbytes(3_000_000))
    return served


def endless(request: Request) -> None:
    """A body of unknown length."""
    request.head(200, {"Transfer-Encoding": "chunked"})
    while True:
        request.wfile.write(b"100000\r\n" + bytes(2**20) + b"\r\n")


def run(hostile: HostileServer, folder: Path, limit: str = "", before: tuple[str, ...] = ()) -> str:
    return run_and_list(hostile, folder, limit, before)[0]


def run_and_list(hostile: HostileServer, folder: Path, limit: str = "", before: tuple[str, ...] = ()) -> list[str]:
    """The path or the sentence, and after the sentence the kinds of files that are kept for the next run."""
    process = subprocess.run([*before, sys.executable, "-c", PROGRAM, str(ROOT), LINK, str(folder), limit,
                              hostile.environment()], text=True, capture_output=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_a_disk_that_takes_no_more(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    """The system refuses to let the file grow beyond a limit, as a full disk does."""
    folder = tmp_path / "cache"
    sentence = run(hostile, folder, limit="1500000")
    assert sentence.startswith(f"The disk of {folder / 'partial'} took no more: File too large.")
    assert "of 3 MB are kept" in sentence and sentence.endswith("Make room, and run again.")
    assert not (folder / "sha256").exists()
    sent = served.sent
    assert Path(run(hostile, folder)).read_bytes() == served.data
    assert served.sent - sent < 2_000_000


def test_a_disk_that_takes_no_more_gets_back_what_no_run_can_go_on_from(hostile: HostileServer, tmp_path: Path) -> None:
    hostile.routes["/lora.safetensors"] = endless
    sentence, kept = run_and_list(hostile, tmp_path / "cache", limit="1500000")
    assert sentence.endswith("took no more: File too large. Nothing was kept. Make room, and run again.")
    assert kept == ""


def _can_mount() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run(
        [unshare, "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="small file systems cannot be mounted here")
def test_a_disk_without_room_is_told_before_the_body(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=4m none "{folder}" && exec "$@"', "sh")
    sentence = run(hostile, folder, before=mounted)
    assert sentence.startswith(f"The disk of {folder / 'partial'} has 4")
    assert "MB free; 3 MB are to come" in sentence and sentence.endswith("Make room, and run again.")
    assert served.bodies == 0


@pytest.mark.skipif(not _can_mount(), reason="small file systems cannot be mounted here")
def test_a_disk_that_fills_up_meanwhile(hostile: HostileServer, tmp_path: Path) -> None:
    """Room for the file when it begins; a body of unknown length takes what a download leaves free, and no more."""
    hostile.routes["/lora.safetensors"] = endless
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = ("unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=100m none "{folder}" && exec "$@"', "sh")
    sentence, kept = run_and_list(hostile, folder, before=mounted)
    assert "MB free; the server does not say how much is to come, and a download leaves 67.1 MB free." in sentence
    assert sentence.endswith("Nothing was kept. Make room, and run again.") and kept == ""


def test_bytes_whose_note_cannot_be_written_go(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    """Without the note no run can go on from what is there."""
    served.cut_after = 1_000_000
    partial = tmp_path / "cache" / "partial"
    (partial / f"{link_name(LINK)}.tmp").mkdir(parents=True)
    once = hostile.policy(replace(QUICK, attempts=1, step=10**9))
    with pytest.raises(DownloadError, match="Nothing was kept; run again to start anew"):
        fetch(LINK, folder=tmp_path / "cache", policy=once, tokens=Tokens({}))
    assert not list(partial.glob("*.part"))


def test_a_folder_that_may_not_be_written(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="could not be written to: Not a directory"):
        fetch(LINK, folder=tmp_path / "file" / "cache", policy=hostile.policy(), tokens=Tokens({}))
    assert served.bodies == 0


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0 and not _can_mount(), reason="root may write anywhere")
def test_a_read_only_folder(hostile: HostileServer, served: File, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o500)
    mounted = () if os.geteuid() else (
        "unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o ro none "{folder}" && exec "$@"', "sh")
    sentence = run(hostile, folder, before=mounted)
    assert "may not be written to" in sentence and "Give ComfyUI the right to write there" in sentence
    assert served.bodies == 0
