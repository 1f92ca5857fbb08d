#!/usr/bin/env python3
"""Try, serve and test this node pack with one command.

    python3 dev.py demo [--image FILE] [--camera PATH] [--prompt TEXT] [--out DIR]
    python3 dev.py serve [--port N]
    python3 dev.py test [pytest arguments]
    python3 dev.py gpu [options of bench/gpu]
    python3 dev.py twins | thumbnails

It needs Python 3.10 or newer and nothing else: what is missing (a virtual environment, ComfyUI, the packages
of both) it prepares itself, once, inside this checkout. ComfyUI is looked for in the environment variable
COMFYUI_PATH, then around this checkout (when it lies in a custom_nodes/ folder), and is fetched otherwise. `gpu` runs
on the Python that runs it when that has PyTorch and there is a ComfyUI already.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # ComfyUI's own Python for Windows does not look here by itself

from devtools.environment import find_comfyui, prepare
from devtools.files import check_output, check_picture, write_new
from devtools.package_versions import folders_of_other_versions
from devtools.paths import CACHE, CAMERA_WORKFLOW, DEMO_WORKFLOW, ROOT, SAMPLE_PICTURES, VENV_PYTHON
from devtools.processes import OPENMP
from devtools.server import ComfyServer, free_port
from devtools.terminal import DevError, say, tail
from devtools.workflow import Workflow, download_video, nodes_of_class, run_workflow


def demo(image: Path | None, prompt: str | None, camera: str | None, out: Path) -> int:
    """Make a clip: of the prompt alone where only that is given, else on a camera path."""
    file = DEMO_WORKFLOW if prompt is not None and camera is None else CAMERA_WORKFLOW
    workflow: Workflow = json.loads(file.read_text("utf-8"))
    for node_id in nodes_of_class(workflow, "Wan22CameraPath") if camera is not None else ():
        workflow[node_id]["inputs"]["path"] = camera_path(camera)
    loaders = nodes_of_class(workflow, "LoadImage")
    picture = image or SAMPLE_PICTURES / workflow[loaders[0]]["inputs"]["image"]
    check_picture(picture)
    check_output(out)
    comfyui, log = prepare(), CACHE / "demo.log"
    say("Starting ComfyUI")
    with (
        tempfile.TemporaryDirectory(prefix="wan22-", ignore_cleanup_errors=True) as base,
        ComfyServer(comfyui, Path(base), log) as server,
    ):
        try:
            for node_id in loaders:
                workflow[node_id]["inputs"]["image"] = server.upload_picture(picture)
            for node_id in nodes_of_class(workflow, "Wan22EncodePrompt") if prompt is not None else ():
                workflow[node_id]["inputs"]["prompt"] = prompt
            outputs = run_workflow(server, workflow)
            video = download_video(server, outputs, nodes_of_class(workflow, "Wan22SaveMP4"))
        except OSError as error:  # urllib's errors are of this kind too
            raise DevError(f"ComfyUI went away or gave an unexpected answer ({error}):\n{tail(log)}") from None
    say(str(write_new(out.absolute(), picture.stem, ".mp4", video)))
    return 0


def camera_path(name: str) -> str:
    """Return a named camera path as JSON. Raises DevError for another name."""
    from pipeline.motion.presets import PRESETS, preset_json

    if name not in PRESETS:
        raise DevError(f"There is no camera path {name!r}. Choose one of: {', '.join(PRESETS)}.")
    return preset_json(name)


def serve(port: int | None) -> int:
    try:
        chosen = free_port(8188 if port is None else port)
    except (OSError, OverflowError):
        if port is not None:
            raise DevError(f"Port {port} is taken or not allowed. Choose another, or leave --port out.") from None
        chosen = free_port()
    comfyui, base, log = prepare(), CACHE / "run", CACHE / "serve.log"
    server = ComfyServer(comfyui, base, log, port=chosen)
    if (comfyui / "models").is_dir():  # a person's own weights stay where their ComfyUI has them
        server.options += ["--models-directory", str(comfyui / "models")]
    say("Starting ComfyUI")
    with contextlib.suppress(KeyboardInterrupt), server:
        say(f"ComfyUI is at {server.url} (Ctrl-C stops it). Its files are in {base}, its log is {log}")
        while server.running():
            time.sleep(0.5)
        raise DevError(f"ComfyUI stopped by itself:\n{tail(log)}")
    say("\nStopped.")
    return 0


def gpu(arguments: Sequence[str]) -> int:
    comfyui, python = find_comfyui(ROOT, os.environ), sys.executable
    if comfyui is None or importlib.util.find_spec("torch") is None:
        comfyui, python = prepare(), str(VENV_PYTHON)
    say(f"Measuring with {python} and the ComfyUI in {comfyui}")
    return run_program([python, str(ROOT / "bench" / "gpu"), *arguments], comfyui, Path.cwd())


def run_check(tool: str, arguments: Sequence[str], comfyui: Path, **variables: str) -> int:
    return run_program([str(VENV_PYTHON), "-m", tool, *arguments], comfyui, ROOT, **variables)


def run_program(command: Sequence[str], comfyui: Path, folder: Path, **variables: str) -> int:
    environ = {**OPENMP, **os.environ, "COMFYUI_PATH": str(comfyui), **variables}
    process = subprocess.Popen(command, cwd=folder, env=environ)
    try:
        return process.wait()
    except SystemExit:  # asked to stop: pytest must stop the servers it started (Ctrl-C has reached it by itself)
        process.send_signal(signal.SIGINT)
        raise
    finally:
        process.wait()


WITH_COMFYUI = ("tests/nodes", "tests/web")
"""Folders of tests that share a running ComfyUI and a browser."""


def test(pytest_arguments: Sequence[str]) -> int:
    comfyui = prepare(tests=True)
    failed = run_check("ruff", ["check"], comfyui) or run_check("devtools.check_imports", [], comfyui)
    if failed or pytest_arguments:
        return failed or run_check("pytest", pytest_arguments, comfyui)
    return test_all(comfyui) or test_other_versions(comfyui)


def test_all(comfyui: Path) -> int:
    """Run all tests: those without a shared ComfyUI on all cores, then those with it in two processes, one of which has
    all that need the browser."""
    beside = [f"--ignore={folder}" for folder in WITH_COMFYUI]
    return (run_check("pytest", ["-q", "-n", workers(4), "--dist=worksteal", *beside], comfyui, OMP_NUM_THREADS="1")
            or run_check("pytest", ["-q", "-n", workers(2), "--dist=loadscope", *WITH_COMFYUI], comfyui))


def test_other_versions(comfyui: Path) -> int:
    for folder, tests in folders_of_other_versions():
        failed = run_check("pytest", ["-q", "-n", workers(2), "--dist=loadscope", *tests], comfyui,
                           PYTHONPATH=str(folder), OMP_NUM_THREADS="1")
        if failed:
            return failed
    return 0


def workers(most: int) -> str:
    """Return how many processes to test in, for pytest-xdist."""
    return str(min(most, os.cpu_count() or 1))


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="dev.py", description="Try, serve and test this ComfyUI node pack.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser("demo", help="animate a picture with the bundled model")
    demo_parser.add_argument("--image", type=Path, metavar="FILE", help="the picture (default: the bundled one)")
    demo_parser.add_argument("--camera", metavar="PATH",
                             help='where the camera goes, such as "pan left" (default: "zoom in", or by the prompt)')
    demo_parser.add_argument("--prompt", metavar="TEXT", help="what should happen (default: the camera moves)")
    demo_parser.add_argument("--out", type=Path, metavar="DIR", default=ROOT / "output", help="where the MP4 goes")
    serve_parser = commands.add_parser("serve", help="open ComfyUI's canvas with this pack")
    serve_parser.add_argument("--port", type=int, metavar="N", help="default: 8188, or a free one when it is taken")
    commands.add_parser("twins", help="make workflows/api anew from workflows/, with Chromium")
    commands.add_parser("thumbnails", help="make the pictures of the template browser anew")
    commands.add_parser("test", help="run ruff, import-linter and pytest; arguments go to pytest", add_help=False)
    commands.add_parser("gpu", help="measure on this machine's GPU; options go to bench/gpu", add_help=False)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("test", "gpu"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options, rest


def main(arguments: Sequence[str]) -> int:
    if sys.version_info < (3, 10):  # noqa: UP036 - the one line that an older Python is meant to reach
        sys.exit(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}.")
    options, rest = parse(arguments)
    for name in ("SIGTERM", "SIGHUP"):  # so that the server is stopped on these too, not only on Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a path must print on any terminal
    try:
        if options.command == "demo":
            return demo(options.image, options.prompt, options.camera, options.out)
        if options.command == "serve":
            return serve(options.port)
        if options.command in ("twins", "thumbnails"):
            return run_check(f"devtools.{options.command}", [], prepare(tests=True))
        return gpu(rest) if options.command == "gpu" else test(rest)
    except DevError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # of the set-up: a full disk, a folder that may not be written
        print(f"{error.filename or ROOT}: {error.strerror or error}. Nothing is lost: mend that, and run the same "
              "command again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
