"""Resident memory of Decode to MP4 over the length of a clip, with the bundled VAE on the CPU.

usage: mp4_memory.py [--frames 481] [--size 832x480] [--rows 8]

Prints the resident set after every so many frames, less the one before decoding started. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.mp4 import resident  # noqa: E402
from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.vae import (  # noqa: E402
    FRAMES_A_LATENT,
    WanVAE,
    load_vae,
)
from pipeline.video.save import Mp4, decode_to_mp4  # noqa: E402

PICTURE = ROOT / "workflows" / "input" / "wan22_coffee.png"


def latents_of(vae: WanVAE, width: int, height: int, frames: int) -> torch.Tensor:
    """The bundled picture, panned to the left by 8 pixels every other latent."""
    with Image.open(PICTURE) as file:
        picture = torch.from_numpy(np.array(file.convert("RGB").resize((width, height)))) / 255
    still = vae.encode(picture[None])
    count = (frames - 1) // FRAMES_A_LATENT + 1
    return torch.cat([still.roll(n // 2, -1) for n in range(count)], 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=481)
    parser.add_argument("--size", default="832x480")
    parser.add_argument("--rows", type=int, default=8, help="lines of the table")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    vae = WanVAE(*load_vae(bundled.DEMO_VAE, plain_host()))
    latents = latents_of(vae, width, height, args.frames)
    every = -(-args.frames // args.rows)
    print("| frames | s | MiB more than before |\n|---|---|---|")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts anew (proc.rst)
    before, start = resident("VmRSS"), time.perf_counter()

    def on_frame(done: int, total: int) -> None:
        if done % every == 0 or done == total:
            more = (resident("VmRSS") - before) / 2**20
            print(f"| {done} | {time.perf_counter() - start:.0f} | {more:.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        written = decode_to_mp4(Mp4(lambda: Path(folder, "clip.mp4")), vae, {"samples": latents}, on_frame)
        size = written.path.stat().st_size
    frames = latents.shape[2] * FRAMES_A_LATENT - FRAMES_A_LATENT + 1
    print(f"\nHighest: {(resident('VmHWM') - before) / 2**20:.0f} MiB more; the file has {size / 2**20:.1f} MiB, the "
          f"frames as floats would be {frames * height * width * 12 / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()
