"""Random weights of full size on the disk: expert files of 14.3 GB each in seconds, because their blocks are alike."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.gpu.plan import Size
from pipeline.checkpoint.mmap import DTYPES
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.models import load as bundled
from tests.support.full_size import write_expert, write_lora, write_vae

FP8 = torch.float8_e4m3fn
FP8_SCALE = 2.5e-4
"""Scale of the fp8 weights: the largest, 448, stands for 0.11, and the usual for 0.02."""
LORA_RANK = 32
SPARE_BYTES = 1e9
"""Bytes of the disk that stay free."""
DRAWN_ROWS = 512
"""Rows of a matrix that are drawn; they come again and again, since drawing them all would take minutes."""


@dataclass(frozen=True)
class Weights:
    """The files that are measured."""

    high: Path
    low: Path
    lora: Path
    vae: Path


def make_weights(folder: Path, size: Size) -> tuple[Weights, str]:
    """Write what is not there yet; return the files, and a sentence on how long that took.

    Both experts are fp8_scaled. Where the disk has room for one alone, the low-noise expert is a second name of the
    high-noise one.
    """
    high, low, lora, vae = (folder / f"wan2.2_i2v_{name}.safetensors" for name in
                            ("high_noise", "low_noise", "lora_high_noise", "vae"))
    weights, complete = Weights(high, low, lora, bundled.DEMO_VAE if size.bundled_vae else vae), folder / "complete"
    if complete.exists():
        return weights, "written before"
    start = time.perf_counter()
    fill(write_lora(lora, LORA_RANK, **size.expert))
    fill(write_expert(high, FP8, **size.expert))
    if shutil.disk_usage(folder).free > high.stat().st_size + SPARE_BYTES:
        fill(write_expert(low, FP8, **size.expert))
    else:
        low.unlink(missing_ok=True)  # of a process that was ended
        os.link(high, low)
    if not size.bundled_vae:
        fill(write_vae(vae, torch.bfloat16))
    complete.touch()
    files = {file.stat().st_ino: file.stat().st_size for file in folder.iterdir()}
    alike = "; one file for both experts, for want of room" if high.samefile(low) else ""
    return weights, f"{sum(files.values()) / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s{alike}"


def fill(path: Path) -> None:
    """Fill a file's holes with random numbers of a plausible size, the same in every block."""
    header = read_header(path)
    seen: dict[str, bytes] = {}
    with path.open("r+b") as file:
        for name, offset in sorted(header.offsets.items(), key=lambda item: item[1]):
            alike = re.sub(r"blocks\.\d+\.", "blocks.N.", name)
            if alike not in seen:
                dtype = DTYPES[header.dtypes[name]]
                seen[alike] = random_tensor(name, header.shapes[name], dtype).view(torch.uint8).numpy().tobytes()
            file.seek(offset)
            file.write(seen[alike])


def random_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a flat tensor of random weights: matrices keep the size of what passes through them, norms are near 1."""
    count = torch.Size(shape).numel()
    if name.endswith("scale_weight"):
        return torch.tensor([FP8_SCALE]).to(dtype)
    if name.endswith(".alpha"):
        return torch.tensor([float(LORA_RANK)]).to(dtype)
    if not count:
        return torch.empty(0, dtype=dtype)
    rows = torch.randn(min(shape[0], DRAWN_ROWS), count // shape[0])
    if dtype == FP8:
        rows = (rows * (0.02 / FP8_SCALE)).clamp_(-448, 448)
    elif len(shape) > 1 and "modulation" not in name and "gamma" not in name:
        rows *= (count // shape[0]) ** -0.5
    else:
        rows = rows * 0.02 + (1.0 if ("norm" in name and name.endswith("weight")) or "gamma" in name else 0.0)
    return rows.to(dtype).repeat(-(-shape[0] // DRAWN_ROWS), 1)[: shape[0]].flatten().contiguous()
