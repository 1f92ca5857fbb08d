"""The report on a GPU, at small size on the CPU: whole, cut short, and with rows that fail."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu.plan import COMFYUI, OURS, Part, Row, parts
from bench.gpu.report import Report, scrub
from bench.gpu.run import Setting, measure
from devtools.environment import local_comfyui
from devtools.paths import ROOT

ENVIRON = {**os.environ, "COMFYUI_PATH": str(local_comfyui())}


def report_of(folder: Path, *options: str) -> str:
    """Run the program as a person does; another's package of the name `tests` is in the way."""
    (folder / "others" / "tests").mkdir(parents=True)
    (folder / "others" / "tests" / "__init__.py").touch()
    environ = {**ENVIRON, "PYTHONPATH": str(folder / "others"), "OUT": str(folder)}
    subprocess.run([sys.executable, str(ROOT / "bench" / "gpu"), "--small", "--scratch", str(folder), *options],
                   env=environ, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return (folder / "gpu-report.md").read_text("utf-8")


def cells(text: str, row: str) -> list[str]:
    """Return the cells of a row of a table."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_both_engines_are_measured_and_agree_and_nothing_is_told_of_the_machine(tmp_path: Path) -> None:
    text = report_of(tmp_path, "--only", "480p")
    for row in ("A pass", "A pass with a LoRA of rank 32", "VAE decode", "VAE encode"):
        ours, comfyui, ratio = map(float, cells(text, row)[:3])
        assert ours > 0 and comfyui > 0 and ratio == pytest.approx(ours / comfyui, rel=0.1, abs=0.01)
    for row, most in (("latents of 6 steps", 1e-4), ("first frame, encoded", 1e-5)):
        assert all(float(distance) < most for distance in cells(text, row))
    assert cells(text, "the same again") == ["equal", "equal"]
    assert "Failed" not in text and "Not measured" not in text
    assert "times" in cells(text, "aten::addmm")[0]  # the profile
    for secret in (str(tmp_path), str(ROOT), str(local_comfyui()), str(Path.home()) + os.sep):
        assert secret not in text
    assert not re.search(rf"\b{getpass.getuser()}\b", text)
    assert not list(tmp_path.glob("wan22-gpu-*"))  # the weights


def test_a_report_that_was_cut_short_says_so(tmp_path: Path) -> None:
    text = report_of(tmp_path, "--minutes", "0")
    assert "Not measured: The bundled model (480p); A pass (480p);" in text
    assert "The 0 minutes were over." in text


def test_a_row_that_fails_says_why_and_the_next_one_is_measured(tmp_path: Path) -> None:
    rows = (Row("A pass", "passes", clip="1080p"), Row("A pass, 480p", "passes"))
    some = [Part("rows", "Rows", rows), Part("start", "Start", rows[1:], ("--no-such-option",))]
    report, seen = Report(), []
    measure(some, Setting(tmp_path, True, True, time.monotonic() + 300, ENVIRON), report, seen.append)
    found = report.found
    assert found["rows", "A pass", OURS].error == found["rows", "A pass", COMFYUI].error == "KeyError: '1080p'"
    assert all(found["rows", "A pass, 480p", engine].values["seconds"] > 0 for engine in (OURS, COMFYUI))
    assert found["start", "A pass, 480p", OURS].error == "the process ended with code 2"
    text = report.text([])
    assert cells(text, "A pass")[:2] == ["KeyError: '1080p'"] * 2
    assert "- Failed, ours: A pass (rows); A pass, 480p (start)." in text
    assert 'File "measure.py", line' in text and "unrecognized arguments: --no-such-option" in text
    assert len(seen) == 6


def test_folders_tokens_and_names_are_taken_out() -> None:
    secret = "hf_" + "abcDEF123" * 3
    assert scrub('  File "/home/Ann Lee/ComfyUI/comfy/ops.py", line 3') == '  File "ops.py", line 3'
    assert scrub(r"at C:\Users\ann\ComfyUI\main.py: no") == "at main.py: no"
    assert scrub(f"GET {secret} in /mnt/data/x.safetensors") == "GET <token> in x.safetensors"
    assert scrub("ours / ComfyUI, 3.2 TFLOP/s, 1/2, a --> b") == "ours / ComfyUI, 3.2 TFLOP/s, 1/2, a --> b"
    assert scrub(f"I am {getpass.getuser()} and keep it in models", ["models"]) == "I am ... and keep it in ..."


def test_the_small_gpu_is_smaller_than_the_one_at_hand() -> None:
    for total, left in ((141.0, 12), (24.0, 12), (16.0, 12), (12.0, 8), (8.0, 6), (6.0, 3.0)):
        small = next(part for part in parts(total) if part.name == "small")
        assert small.options == ("--reserve-vram", f"{total - left:.1f}")
