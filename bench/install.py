"""Install the pack into fresh environments: what moves of the versions that stood there, and does a clip come out?

usage: install.py [--pythons 3.10 3.11 3.12 3.13] [--states NAME ...] [--work DIR]

For each Python and each state of STATES two environments are made with pip: what the pack shares with ComfyUI in that
state's versions, then requirements.txt, line by line as ComfyUI-Manager does or with `pip install -r`. In each the
bundled model makes a clip of 5 frames of 64x64 pixels in 4 steps, with Euler and with UniPC; it is written as an MP4
and read back. Rows of a Markdown table come as they are measured.

PyTorch (2 GB) is linked from the environment that runs this. Another Python gets its own wheels of the same versions
and shares the CUDA libraries. An environment is removed once it is measured. Needs Linux.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
COMFYUI = ("torch", "numpy>=1.25.0", "tokenizers>=0.13.3", "sentencepiece", "pyyaml", "Pillow", "tqdm", "psutil",
           "filelock", "requests")
"""ComfyUI 0.30's requirements that the pack's touch, directly or through another package; the rest is in STATES."""

STATES = {
    "4.57": ("transformers==4.57.6", "safetensors==0.7.0", "av==16.0.1"),
    "4.57 oldest": ("transformers==4.57.6", "safetensors==0.7.0", "av==17.0.0", "diffusers==0.37.1"),
    "5.10": ("transformers==5.10.4", "huggingface-hub==1.20.1", "safetensors", "av>=16"),
    "newest": ("transformers", "safetensors", "av>=16"),
    "newest diffusers": ("transformers", "safetensors", "av>=16", "diffusers"),
}
"""What else stands in an environment before the pack comes."""

KEPT = ("transformers", "huggingface-hub", "numpy", "torch", "tokenizers")
"""What ComfyUI and other packs run on: it shouldn't move."""

SHOWN = ("transformers", "huggingface-hub", "diffusers", "safetensors", "av")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is kept for the error, which ends the benchmark."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done


def pip(python: Path | str, *arguments: object) -> str:
    return run(python, "-m", "pip", "--disable-pip-version-check", *arguments).stdout


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 spells it."""
    return name.lower().replace("_", "-").replace(".", "-")


def versions(python: Path) -> dict[str, str]:
    """Return the versions of all distributions that an environment sees, by name."""
    return {normal(row["name"]): row["version"] for row in json.loads(pip(python, "list", "--format", "json"))}


def find_python(version: str) -> str | None:
    """Return a Python of this version that runs, from the PATH or from pyenv; None where there is none."""
    name = f"python{version}"
    found = [shutil.which(name), *Path.home().glob(f".pyenv/versions/*/bin/{name}")]
    return next((str(path) for path in found if path and not subprocess.run(
        [path, "-c", ""], capture_output=True, check=False).returncode), None)


# ---- environments -----------------------------------------------------------------------------------------------


def of_torch() -> Iterator[importlib.metadata.Distribution]:
    """Yield PyTorch and its binary libraries in the environment that runs this."""
    for distribution in importlib.metadata.distributions():
        name = normal(distribution.name)
        if name in ("torch", "torchvision", "torchaudio") or name.startswith(("nvidia-", "cuda-", "triton")):
            yield distribution


def share_torch(python: str, folder: Path) -> Path:
    """Make a folder for sys.path that holds PyTorch for this Python, linked as far as its files fit; return it."""
    folder.mkdir()
    ours = run(python, "-c", "import sys; print(*sys.version_info[:2])").stdout.split() == [
        str(part) for part in sys.version_info[:2]]
    trio = {f"{d.name}=={d.version.partition('+')[0]}" for d in of_torch() if normal(d.name).startswith("torch")}
    if not ours:
        pip(python, "install", "--quiet", "--no-deps", "--target", folder, *sorted(trio))
    for distribution in of_torch():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            built_for_us = normal(distribution.name).startswith(("torch", "triton")) and not top.endswith(".dist-info")
            link = folder / top
            if (ours or not built_for_us) and top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder


def make_base(python: str, packages: tuple[str, ...], torch: Path, folder: Path) -> None:
    """Make an environment as it stands before the pack comes."""
    run(python, "-m", "venv", folder)
    site = next(folder.glob("lib/python3.*/site-packages"))
    (site / "torch.pth").write_text(f"{torch}\n")
    pip(folder / "bin" / "python", "install", "--no-compile", *COMFYUI, *packages)


def copy_of(base: Path, folder: Path) -> Path:
    """Copy an environment by hard links: pip replaces files and never writes into one. Return the copy's Python."""
    shutil.copytree(base, folder, symlinks=True, copy_function=os.link)
    return folder / "bin" / "python"


def line_by_line(python: Path) -> None:
    """Install as ComfyUI-Manager does: one pip for each line, without its comment."""
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement:
            pip(python, "install", requirement)


def whole_file(python: Path) -> None:
    pip(python, "install", "-r", ROOT / "requirements.txt")


WAYS: dict[str, Callable[[Path], None]] = {"line by line": line_by_line, "`-r`": whole_file}


# ---- measuring --------------------------------------------------------------------------------------------------


def moved(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """Return what became of each version that no longer stands, by name."""
    return {name: f"{name} {version} -> {after.get(name, 'gone')}" for name, version in sorted(before.items())
            if after.get(name) != version}


def shown(found: dict[str, str], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def clip_of(python: Path, work: Path) -> str:
    """Make a clip with an environment's Python; return what the file is, or the error's last line."""
    environment = {**os.environ, "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, __file__, "--clip", work / "clip.mp4"], capture_output=True, text=True,
                          env=environment, check=False)
    (work / "clip.mp4").unlink(missing_ok=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no word"]
    return lines[-1] if done.returncode == 0 else f"FAILED: {lines[-1]}"


def make_clip(path: Path) -> str:
    """Make a clip on the plain host, write it as an MP4, read it back; return what it is."""
    import torch

    from pipeline.models import load as bundled
    from pipeline.models.condition import encode_first_frame
    from pipeline.models.host import plain_host
    from pipeline.models.text_encoder import encode_prompts
    from pipeline.request import Sampling
    from pipeline.sampling.sampler import sample
    from pipeline.video.probe import probe_video
    from pipeline.video.save import Mp4, save_clip

    side = 64
    model, encoder, vae = bundled.load(plain_host())
    picture = torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(0))
    first = encode_first_frame(vae, picture, side, side, 5)
    for scheduler in ("euler", "unipc"):
        sampling = Sampling(seed=1, num_inference_steps=4, scheduler=scheduler)
        latents = sample(model, *encode_prompts(encoder, "the camera pans left", ""), first, sampling)
    frames = vae.decode(latents)[0]
    if not frames.isfinite().all():
        raise ValueError("frames that are not numbers")
    save_clip(Mp4(lambda: path), frames, lambda done, total: None)
    clip = probe_video(path)
    return f"{clip.frames} frames, {clip.codec}, {clip.width}x{clip.height}"


def measure(python: str, states: Iterable[str], work: Path) -> Iterator[tuple[str, ...]]:
    """Yield rows of the table for one Python. A state that pip cannot make is a row too."""
    torch = share_torch(python, work / "torch")
    clips: dict[tuple[tuple[str, str], ...], str] = {}
    for state in states:
        base, own = work / "base", work / "own"
        try:
            make_base(python, STATES[state], torch, base)
            before = versions(base / "bin" / "python")
            for way, install in WAYS.items():
                install(copy_of(base, own))
                after = versions(own / "bin" / "python")
                same = tuple(sorted(after.items()))
                if same not in clips:  # the same versions make the same clip
                    clips[same] = clip_of(own / "bin" / "python", work)
                changed = moved(before, after)
                kept = [changed.pop(name) for name in KEPT if name in changed]
                yield (shown(before, SHOWN), way, ", ".join(kept) or "nothing",
                       ", ".join(changed.values()) or "nothing", shown(after, ("diffusers", "av")), clips[same])
                shutil.rmtree(own)
        except subprocess.CalledProcessError as error:
            yield state, "", "", "", "", f"FAILED: {(error.stderr or str(error)).strip().splitlines()[-1]}"
        for folder in (base, own):
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--states", nargs="+", default=list(STATES), choices=list(STATES), metavar="NAME")
    parser.add_argument("--work", type=Path, help="a folder for the environments (default: a temporary one)")
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clip:
        print(make_clip(options.clip))
        return
    print("| Python | before | installed | moved of what others run on | moved else | used | clip |")
    print("|---|---|---|---|---|---|---|")
    for version in options.pythons:
        python = find_python(version)
        if python is None:
            print(f"| {version} | not on this machine | | | | | |", flush=True)
            continue
        with tempfile.TemporaryDirectory(prefix="wan22-install-", dir=options.work) as folder:
            for row in measure(python, options.states, Path(folder)):
                print("| " + " | ".join((version, *row)) + " |", flush=True)


if __name__ == "__main__":
    main()
