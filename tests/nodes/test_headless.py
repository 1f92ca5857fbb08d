"""The script for use without the canvas, as a program of its own beside a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest

from devtools.paths import ROOT, SAMPLE_PICTURES
from devtools.server import ComfyServer, free_port
from tests.support.comfy_proxy import proxy

PICTURE = sorted(SAMPLE_PICTURES.glob("*.png"))[0]
SHORT = ("--set", "Wan22FirstFrame.num_frames=5", "--set", "Wan22Sampler.num_inference_steps=4")


def run(url: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script's end, its outputs as text."""
    command = [sys.executable, str(ROOT / "workflows" / "run_headless.py"), *words, "--server", url]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def test_a_picture_becomes_a_clip(server: ComfyServer, tmp_path: Path) -> None:
    done = run(server.url, str(PICTURE), "the camera zooms in", *SHORT, "--out", "cat.mp4", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Wan22Sampler             4/4" in done.stdout
    assert done.stdout.endswith("cat.mp4\n")
    with av.open(str(tmp_path / "cat.mp4")) as clip:
        assert len(list(clip.decode(video=0))) == 5
        assert "the camera zooms in" in clip.metadata["prompt"]


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "Wan22FirstFrame.num_frames=6"], "num_frames is 6; it must be a multiple of 4 plus 1"),
    (["--set", "Wan22FirstFrames.num_frames=5"], "4 (Wan22FirstFrame)"),
    (["--workflow", "gone.json"], "gone.json: No such file or directory"),
])
def test_what_was_wrong_is_said(server: ComfyServer, tmp_path: Path, words: list[str], said: str) -> None:
    done = run(server.url, str(PICTURE), "the camera zooms in", *words, folder=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "said"), [
    (["--set", "Wan22Sampler.sede=7"], "Wan22Sampler has no input 'sede'. It has model, positive,"),
    (["--set", "Wan22Sampler.seed"], "write it as NODE.INPUT=VALUE"),
    (["--set", "Wan22FirstFrame.resolution=custom", "--set", "Wan22FirstFrame.resolution.widht=64"], "no input"),
    (["--out", "gone/cat.mp4"], "there is no folder gone"),
])
def test_a_slip_on_the_command_line_is_told_before_anything_is_made(server: ComfyServer, tmp_path: Path,
                                                                    words: list[str], said: str) -> None:
    done = run(server.url, str(PICTURE), *words, folder=tmp_path)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999", "http://127.0.0.1:x", "ftp://127.0.0.1", ""])
def test_what_is_no_address(tmp_path: Path, url: str) -> None:
    done = run(url, str(PICTURE), folder=tmp_path)
    assert done.returncode == 2 and f"{url!r} is not an address such as http://127.0.0.1:8188" in done.stderr


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    done = run("http://127.0.0.1:8188", "gone.png", folder=tmp_path)
    assert done.returncode == 2 and "there is no file gone.png" in done.stderr


def test_a_server_below_a_path_of_another(server: ComfyServer, tmp_path: Path) -> None:
    """As behind a reverse proxy; the clip goes into a folder."""
    with proxy(server, "/comfy") as address:
        done = run(f"{address}/", str(PICTURE), *SHORT, "--out", ".", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]


def test_a_failing_node_says_why(server: ComfyServer, tmp_path: Path) -> None:
    done = run(server.url, str(PICTURE), "red " * 600, *SHORT, folder=tmp_path)
    assert done.returncode == 1
    assert "Wan22EncodePrompt: The prompt is" in done.stderr


@pytest.mark.parametrize(("text", "said"), [
    ('{"nodes": [{"id": 1}], "links": [], "version": 0.4}', "Export (API)"),
    ("[]", "Export (API)"),
    ("<html>", "Export (API)"),
])
def test_a_file_that_is_no_workflow_in_api_format(tmp_path: Path, text: str, said: str) -> None:
    """Above all the canvas' own files: nothing is asked of a server for them."""
    (tmp_path / "mine.json").write_text(text)
    done = run(f"http://127.0.0.1:{free_port()}", str(PICTURE), "--workflow", "mine.json", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("mine.json is not a workflow") and said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_without_its_scheme(tmp_path: Path) -> None:
    done = run(f"127.0.0.1:{free_port()}", str(PICTURE), folder=tmp_path)
    assert done.returncode == 1
    assert "http://127.0.0.1" in done.stderr and "Traceback" not in done.stderr


def test_no_server(tmp_path: Path) -> None:
    done = run(f"http://127.0.0.1:{free_port()}", str(PICTURE), folder=tmp_path)
    assert done.returncode == 1
    assert "Is ComfyUI running there?" in done.stderr
