"""What the pack uses of ComfyUI is there, and takes the arguments that the pack gives it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from devtools.environment import local_comfyui
from devtools.paths import ROOT

WRONG = """
from comfy_api.latest import io
import comfy.utils

io.Int.Input("a", default=1, colour="red")
comfy.utils.ProgressBar(1, node_id="2")
comfy.utils.ProgressBar()
comfy.utils.no_such_name
"""


def report(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devtools.comfyui_symbols", local_comfyui(), *files]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)


def test_comfyui_has_all_that_the_pack_uses() -> None:
    done = report()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has all" in done.stdout


def test_what_is_missing_or_called_otherwise_is_named(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    done = report(file)
    assert done.returncode == 1
    *faults, last = done.stdout.splitlines()
    faults.sort()
    assert [line.partition(": ")[0] for line in faults] == ["wrong.py:5", "wrong.py:7", "wrong.py:8"]
    assert "colour" in faults[0] and "total" in faults[1] and "no_such_name is not there" in faults[2]
    assert last.endswith("3 of the pack's uses do not hold.")
