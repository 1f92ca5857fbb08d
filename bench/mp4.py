"""The MP4 writer beside core's SaveVideo and beside x264 alone on frames that are ready.

usage: mp4.py [--frames 81] [--size 1280x720] [--crf 17] [--rounds 3] [--json FILE]

Each writer encodes the same frames, in a process of its own, at preset medium: ours, what core's SaveVideo does with an
IMAGE (VideoFromComponents.save_to) and x264 on Y'CbCr frames made before, which no writer can beat ("floor"). Seconds
are the median of the rounds, taken in turns, and beside them those that all threads together had a core for; memory is
the highest resident set while writing less the one before; PSNR is of the frames as a BT.709 player shows them
(libswscale, accurate, bicubic chroma) against the floats that were given. Linux only. On a machine that is busy
otherwise, seconds on the clock mean little, those on a core a little more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
WRITERS = ("ours", "core", "floor")


def frames_of(count: int, width: int, height: int) -> torch.Tensor:
    """Coloured shapes that move over a gradient, with a little grain: IMAGE (count, height, width, 3)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, width / height, width), indexing="ij")
    grain = torch.randn(height, width, 3, generator=torch.Generator().manual_seed(0)) * 0.01
    images = torch.empty(count, height, width, 3)
    for n in range(count):
        t = n / 40
        images[n] = torch.stack([x / 2 + 0.1 * torch.sin(9 * y + t), 0.6 - y / 2, 0.4 + 0.2 * torch.cos(7 * x - t)], -1)
        for i, colour in enumerate([(0.9, 0.1, 0.1), (0.1, 0.2, 0.9), (0.1, 0.8, 0.2)]):
            centre = 0.3 + 0.4 * i + 0.1 * np.sin(t + i), 0.5 + 0.2 * np.cos(1.3 * t + i)
            images[n][(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 0.02] = torch.tensor(colour)
        images[n] += grain.roll((n * 3, n * 5), (0, 1))
    return images.clamp_(0, 1)


def ours(images: torch.Tensor, path: Path, crf: float) -> Callable[[], Any]:
    from pipeline.video.encoding import Encoding
    from pipeline.video.save import Mp4, save_clip

    return lambda: save_clip(Mp4(lambda: path, Encoding(crf=crf)), images, lambda done, total: None)


def core(images: torch.Tensor, path: Path, crf: float) -> Callable[[], Any]:
    from tests.support.comfy_in_process import import_comfyui

    import_comfyui()
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(16)))
    return lambda: video.save_to(str(path), crf=crf)


def floor(images: torch.Tensor, path: Path, crf: float) -> Callable[[], Any]:
    import av

    from pipeline.video.encoding import Encoding
    from pipeline.video.yuv import to_rgb, to_yuv

    encoding = Encoding(crf=crf)
    ready = [to_yuv(to_rgb(frame, 1, encoding), encoding) for frame in images]

    def write() -> None:
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=16, options={"crf": f"{crf:g}", "preset": "medium"})
            stream.width, stream.height, stream.pix_fmt = ready[0].width, ready[0].height, "yuv420p"
            for frame in ready:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return write


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))[1]) * 1024


def psnr(path: Path, images: torch.Tensor) -> float:
    import av
    from av.video.reformatter import Interpolation

    flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    squares = []
    with av.open(str(path)) as container:
        for frame, image in zip(container.decode(video=0), images, strict=True):
            shown = frame.reformat(format="rgb24", src_colorspace="ITU709", src_color_range="MPEG",
                                   dst_color_range="JPEG", interpolation=flags).to_ndarray()
            squares.append(float(np.square(shown / np.float32(255) - image.numpy()).mean()))
    return -10 * float(np.log10(np.mean(squares)))


def measure(writer: str, count: int, width: int, height: int, crf: float) -> dict[str, float]:
    """Write once, in this process."""
    images = frames_of(count, width, height)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clip.mp4")
        write = {"ours": ours, "core": core, "floor": floor}[writer](images, path, crf)
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak starts anew (proc.rst)
        before, start, start_cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
        write()
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        return {"seconds": seconds, "cpu": cpu, "memory": resident("VmHWM") - before, "size": path.stat().st_size,
                "psnr": psnr(path, images)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--crf", type=float, default=17.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=WRITERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    if args.one:
        print(json.dumps(measure(args.one, args.frames, width, height, args.crf)))
        return
    found: dict[str, list[dict[str, float]]] = {writer: [] for writer in WRITERS}
    for _ in range(args.rounds):
        for writer in WRITERS:
            answer = subprocess.run([sys.executable, *sys.argv, "--one", writer], stdout=subprocess.PIPE, check=True,
                                    env={**os.environ, "HF_HUB_OFFLINE": "1"})
            found[writer].append(json.loads(answer.stdout.splitlines()[-1]))
    seconds, cpu = ({writer: statistics.median(row[key] for row in rows) for writer, rows in found.items()}
                    for key in ("seconds", "cpu"))
    print(f"| {args.frames} frames of {args.size}, crf {args.crf:g} | s | of the floor | s on a core | of the floor | "
          "MiB | file KiB | PSNR dB |")
    print("|---|---|---|---|---|---|---|---|")
    for writer, rows in found.items():
        memory, size = max(row["memory"] for row in rows) / 2**20, rows[0]["size"] / 1024
        print(f"| {writer} | {seconds[writer]:.2f} | {seconds[writer] / seconds['floor']:.2f} | {cpu[writer]:.2f} | "
              f"{cpu[writer] / cpu['floor']:.2f} | {memory:.0f} | {size:.0f} | {rows[0]['psnr']:.2f} |")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
