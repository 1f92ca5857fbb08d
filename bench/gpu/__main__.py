"""A report on a GPU in under ten minutes, to paste into an issue: speed, memory and exactness beside ComfyUI's own.

In your ComfyUI, or else in one that it fetches:

    python3 dev.py gpu

On a machine with PyTorch and CUDA and without internet: here, with the Python of dev.py, fill a folder with what such a
machine lacks (25 MB, ignored by git); take it along in the checkout; there run the second line, in at most 570 s.

    .venv/bin/python bench/gpu --collect .gpu
    python3 bench/gpu --take .gpu

It writes random weights of full size (2 x 14.3 GB) to /dev/shm or to a temporary folder, and removes them. What tells
most comes first; every row is printed when it is there, and a report that was interrupted is still one. It goes to
--out, else into the folder that the variable OUT names, else to output/gpu-report.md. `--small` tries all of it on a
tiny model, on a CPU too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
for name in ("bench", "tests"):  # another's installed package of the name would go before these, which are namespaces
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(ROOT / name)]

from bench.gpu.carry import collect, unpack  # noqa: E402
from bench.gpu.plan import PARTS, parts  # noqa: E402
from bench.gpu.report import Report, scrub  # noqa: E402
from bench.gpu.run import Setting, measure, scratch_folder  # noqa: E402
from devtools.environment import local_comfyui  # noqa: E402
from devtools.processes import OPENMP  # noqa: E402
from devtools.terminal import DevError, say  # noqa: E402

MINUTES = 9.0
MODULES = ("torch", "torchvision", "torchaudio", "numpy", "scipy", "einops", "transformers", "sentencepiece",
           "safetensors", "psutil", "tqdm", "PIL", "yaml", "requests", "urllib3", "idna", "filelock", "packaging",
           "diffusers", "gguf", "torchsde", "comfy_kitchen", "comfy_aimdo")
"""Modules that a run imports, beside those that these need."""
LOOK = """
import json, torch
found = torch.accelerator.is_available()
cuda = found and torch.cuda.is_available()
print(json.dumps([found, torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None]))
"""


def device_gib(environ: dict[str, str]) -> tuple[bool, float]:
    """Return whether PyTorch sees a GPU, and its memory in GiB; that of the RAM where PyTorch does not tell."""
    import psutil

    found = subprocess.run([sys.executable, "-c", LOOK], env=environ, stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        raise DevError("PyTorch cannot be imported; why is above.")
    seen, gib = json.loads(found.stdout)
    return seen, gib or psutil.virtual_memory().total / 2**30


def check_modules(folders: str) -> None:
    """Raise DevError for modules that are neither installed nor in some folders, joined as in PYTHONPATH."""
    sys.path[1:1] = filter(None, folders.split(os.pathsep))
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise DevError(f"This Python lacks {', '.join(missing)}. Install what requirements.txt and ComfyUI's "
                       "requirements.txt list, or collect them with --also and take them along.")


def report(options: argparse.Namespace, environ: dict[str, str]) -> None:
    """Measure, and write the report anew after each row."""
    start = time.monotonic()
    if not (local_comfyui() / "folder_paths.py").is_file():
        raise DevError("There is no ComfyUI. `python3 dev.py gpu` fetches one; COMFYUI_PATH names the folder of yours.")
    seen, gib = device_gib(environ)
    if not (seen or options.small):
        raise DevError("PyTorch sees no GPU here. --small tries everything on the CPU.")
    with tempfile.TemporaryDirectory(prefix="wan22-gpu-", dir=scratch_folder(options.small, options.scratch),
                                     ignore_cleanup_errors=True) as scratch:
        found = Report(notes=["The model is tiny: the times tell nothing."] if options.small else [])
        secrets = [scratch, str(ROOT), environ["COMFYUI_PATH"]]

        def publish(news: str) -> None:
            say(f"{time.monotonic() - start:4.0f} s  {scrub(news, secrets)}")
            options.out.write_text(found.text(secrets), "utf-8")

        setting = Setting(Path(scratch), options.small, not seen, start + 60 * options.minutes, environ)
        wanted = [part for part in parts(gib) if part.name in options.only]
        try:
            measure(wanted, setting, found, publish)
        except BaseException:
            found.notes.append("Interrupted.")
            raise
        finally:
            if setting.left() <= 0:
                found.notes.append(f"The {options.minutes:g} minutes were over.")
            found.facts["measured in"] = f"{time.monotonic() - start:.0f} s"
            text = found.text(secrets)
            options.out.write_text(text, "utf-8")
            say(f"\n{text}\nThe report is in {options.out}. Read it before you paste it.")


def parse() -> argparse.Namespace:
    """Return the options."""
    folder = Path(os.environ.get("OUT") or ROOT / "output")
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"when to stop (default: {MINUTES:g})")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the report; all by default")
    parser.add_argument("--small", action="store_true", help="a tiny model, and tiny clips")
    parser.add_argument("--out", type=Path, metavar="FILE", default=folder / "gpu-report.md", help="the report")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where to make the weights, 30 GB")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="fill a folder for a machine without internet")
    parser.add_argument("--python", default="3.12", help="of that machine (default: 3.12)")
    parser.add_argument("--also", nargs="+", default=(), metavar="PACKAGE", help="further packages to collect")
    parser.add_argument("--take", type=Path, metavar="FOLDER", help="use what was collected there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Do what the command line asks for; return the exit status."""
    options = parse()
    if options.worker:
        from bench.gpu.worker import main as work

        work()
        return 0
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # the report must print on any terminal
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        if options.collect:
            file = collect(options.collect, options.python, options.also)
            say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
            return 0
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as unpacked:
            taken = unpack(options.take, Path(unpacked)) if options.take else {}
            os.environ.update(taken)
            environ = {**OPENMP, **os.environ, "COMFYUI_PATH": str(local_comfyui()), "HF_HUB_OFFLINE": "1",
                       "PYTHONUTF8": "1"}
            check_modules(taken.get("PYTHONPATH", ""))
            report(options, environ)
    except DevError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
