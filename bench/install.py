"""Does installing this pack leave what stood before alone, and does the pack run afterwards? Fresh environments tell.

usage: install.py [--pythons PROGRAM ...] [--work DIR]

For each Python and each state of BEFORE, environments are made with pip: what ComfyUI requires, in that state's
versions, then requirements.txt, once line by line as ComfyUI-Manager does and once with `pip install -r`. Each ends in
a clip: the bundled model, 5 frames of 64x64 pixels, 4 steps, written as an MP4 and read back. The Markdown table says
what moved of what stood before.

PyTorch (2 GB) is linked from the environment that runs this; another Python gets its own wheels of the same versions,
and shares their CUDA libraries. An environment is removed once it is measured.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PYTHONS = ("python3.10", "python3.11", "python3.12", "python3.13")
COMFYUI = ("torch", "numpy>=1.25.0", "einops", "tokenizers>=0.13.3", "sentencepiece", "aiohttp>=3.11.8", "yarl>=1.18.0",
           "pyyaml", "Pillow", "scipy", "tqdm", "psutil", "alembic", "SQLAlchemy>=2.0.0", "filelock", "requests",
           "simpleeval>=1.0.0", "blake3", "pydantic~=2.0", "pydantic-settings~=2.0")
"""ComfyUI 0.30's requirements, less its own packages, those that nothing of the pack's touches, and those of BEFORE."""

KEPT = ("transformers", "huggingface-hub", "numpy", "torch", "tokenizers")
"""What other packs and ComfyUI itself break without."""

WATCHED = ("transformers", "huggingface-hub", "diffusers", "safetensors", "av")


@dataclass(frozen=True)
class Before:
    """Versions that stand in an environment before the pack comes."""

    name: str
    packages: tuple[str, ...]


BEFORE = (
    Before("transformers 4.57", ("transformers==4.57.6", "safetensors==0.7.0", "av==16.0.1")),
    Before("transformers 4.57, diffusers 0.37.1, av 17.0",
           ("transformers==4.57.6", "safetensors==0.7.0", "diffusers==0.37.1", "av==17.0.0")),
    Before("transformers 5.10, hub 1.20", ("transformers==5.10.4", "huggingface-hub==1.20.1", "safetensors", "av>=16")),
    Before("newest, no diffusers", ("transformers", "safetensors", "av>=16")),
    Before("newest, with diffusers", ("transformers", "safetensors", "diffusers", "av>=16")),
)


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is kept for the error, which ends the benchmark."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
    return done


def pip(python: Path | str, *arguments: object) -> str:
    return run(python, "-m", "pip", "--disable-pip-version-check", *arguments).stdout


def normal(name: str) -> str:
    """A distribution's name as PEP 503 spells it."""
    return name.lower().replace("_", "-").replace(".", "-")


def versions(python: Path) -> dict[str, str]:
    """Versions of all distributions that an environment sees, by name."""
    return {normal(row["name"]): row["version"] for row in json.loads(pip(python, "list", "--format", "json"))}


# ---- environments -----------------------------------------------------------------------------------------------


def of_torch() -> Iterator[importlib.metadata.Distribution]:
    """PyTorch and its binary libraries in the environment that runs this."""
    for distribution in importlib.metadata.distributions():
        if normal(distribution.name).startswith(("torch", "nvidia-", "cuda-", "triton")):
            if normal(distribution.name) != "torchsde":
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


def base_environment(python: str, before: Before, torch: Path, folder: Path) -> Path:
    """Make an environment as it stands before the pack comes; return its folder."""
    run(python, "-m", "venv", folder)
    site = next(folder.glob("lib/python3.*/site-packages"))
    (site / "torch.pth").write_text(f"{torch}\n")
    pip(folder / "bin" / "python", "install", "--quiet", *COMFYUI, *before.packages)
    return folder


def twin(base: Path, folder: Path) -> Path:
    """Copy an environment by hard links, which pip replaces and never writes into; return its Python."""
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
    """What became of each version that stood before and doesn't any more."""
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
    from pipeline.video.encoding import Encoding
    from pipeline.video.probe import probe
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
    save_clip(Mp4(lambda: path, Encoding(), {}, None), frames, lambda done, total: None)
    clip = probe(path)
    return f"{clip.frames} frames, {clip.codec}, {clip.width}x{clip.height}"


def measure(python: str, work: Path) -> Iterator[list[str]]:
    """Rows of the table for one Python. An environment that pip can't make is a row too."""
    torch = share_torch(python, work / "torch")
    made: dict[tuple[tuple[str, str], ...], str] = {}
    for before in BEFORE:
        base = work / "base"
        try:
            base_environment(python, before, torch, base)
            stood = versions(base / "bin" / "python")
            for way, install in WAYS.items():
                own = twin(base, work / "own")
                install(own)
                after = versions(own)
                key = tuple(sorted(after.items()))
                if key not in made:  # the same versions make the same clip
                    made[key] = clip_of(own, work)
                changed = moved(stood, after)
                kept = [changed.pop(name) for name in KEPT if name in changed]
                yield [before.name, shown(stood, WATCHED), way, ", ".join(kept) or "nothing",
                       ", ".join(changed.values()) or "nothing", shown(after, ("diffusers", "av")), made[key]]
                shutil.rmtree(work / "own")
        except subprocess.CalledProcessError as error:
            yield [before.name, "", "", f"pip failed: {(error.stderr or '').strip().splitlines()[-1:]}", "", "", ""]
            shutil.rmtree(work / "own", ignore_errors=True)
        shutil.rmtree(base, ignore_errors=True)
    shutil.rmtree(torch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="PROGRAM")
    parser.add_argument("--work", type=Path, help="a folder for the environments (default: a temporary one)")
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clip:
        print(make_clip(options.clip))
        return
    print("| Python | state before | versions before | installed | moved of transformers, hub, numpy, torch, tokenizers "
          "| moved else | then | clip |\n|---|---|---|---|---|---|---|---|")
    for python in options.pythons:
        found = shutil.which(python)
        if found is None or subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode:
            print(f"| {python} | not on this machine | | | | | | |", flush=True)
            continue
        name = run(found, "-c", "import platform; print(platform.python_version())").stdout.strip()
        with tempfile.TemporaryDirectory(prefix="wan22-install-", dir=options.work) as folder:
            for row in measure(found, Path(folder)):
                print("| " + " | ".join([name, *row]) + " |", flush=True)


if __name__ == "__main__":
    main()
