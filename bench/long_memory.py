"""Resident memory of a long clip over its segments, with the bundled model on the CPU.

usage: long_memory.py [--segments 20] [--size 256x256] [--frames 33]

Prints the resident set at the end of every segment and its peak within it, less the one before the first segment.
Two steps each: the memory of more is the same. Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.camera import picture  # noqa: E402
from bench.mp4 import resident  # noqa: E402
from pipeline.long_clip.clip import make_clip  # noqa: E402
from pipeline.long_clip.folder import SegmentFolder  # noqa: E402
from pipeline.long_clip.make import LongClip, Watch, prepare  # noqa: E402
from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.request import Sampling  # noqa: E402
from pipeline.segments import FRAMES, Segment  # noqa: E402
from pipeline.video.encoding import Encoding  # noqa: E402
from pipeline.video.save import Mp4  # noqa: E402

WIDTH = 40
"""Characters of the longest bar."""


def new_peak() -> None:
    """Let the peak of the resident set start anew (proc.rst)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--frames", type=int, default=33)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    torch.set_num_threads(1)
    segments = tuple(Segment("the camera pans left", seed, args.frames) for seed in range(args.segments))
    clip = LongClip(picture(0), segments, width, height, Sampling(0, num_inference_steps=2), way=FRAMES, cross_fade=4)
    prepared = prepare(clip, *bundled.load(plain_host()), Encoding(), lambda name: None, lambda *_: Path(), Watch())
    rows: list[tuple[float, float]] = []
    before = resident("VmRSS")
    new_peak()

    def on_segment(place: int, files: object) -> None:
        rows.append(((resident("VmRSS") - before) / 2**20, (resident("VmHWM") - before) / 2**20))
        print(f"segment {place}: {rows[-1][0]:.0f} MiB, highest {rows[-1][1]:.0f} MiB", file=sys.stderr, flush=True)
        new_peak()

    with tempfile.TemporaryDirectory() as base:
        make_clip(prepared, SegmentFolder(Path(base, "segments")), Mp4(lambda: Path(base, "clip.mp4")),
                  on_segment=on_segment)
    most = max(peak for _, peak in rows)
    print("| segment | MiB | highest MiB | |\n|---|---|---|---|")
    for place, (now, peak) in enumerate(rows, 1):
        print(f"| {place} | {now:.0f} | {peak:.0f} | `{'#' * round(WIDTH * peak / most)}` |")
    frames = prepared.plan.num_frames
    print(f"\nThe frames of the whole as floats would be {frames * width * height * 12 / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()
