"""Kill a long clip with SIGKILL at random moments, again and again, and compare it with one that nobody killed.

usage: long_crash.py [--kills 20] [--seed 1]

A process makes a clip of six segments with the bundled model, tells what it does, and is killed at a moment between
its first step and the time that the whole took. The next process goes on. At the end one runs undisturbed: its MP4 and
every file of its segments have to be those of the clip that was made in one go, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SEGMENTS, LENGTH, WIDTH, HEIGHT, STEPS = 6, 9, 64, 48, 4


def work(folder: Path) -> None:
    """Make the clip in a folder, or what is missing of it; tell on the standard output what is being done."""
    import torch

    from bench.camera import picture
    from pipeline.long_clip.clip import make_clip
    from pipeline.long_clip.folder import SegmentFolder
    from pipeline.long_clip.make import LongClip, Watch, prepare
    from pipeline.models import load as bundled
    from pipeline.models.host import plain_host
    from pipeline.request import Sampling
    from pipeline.segments import FRAMES, Segment
    from pipeline.video.encoding import Encoding
    from pipeline.video.save import Mp4

    torch.set_num_threads(1)
    segments = tuple(Segment("the camera pans left", seed, LENGTH) for seed in range(SEGMENTS))
    clip = LongClip(picture(0), segments, WIDTH, HEIGHT, Sampling(0, num_inference_steps=STEPS), way=FRAMES,
                    cross_fade=4)

    def tell(text: str) -> None:
        print(text, flush=True)

    watch = Watch(on_step=lambda planned, step, clean, before: tell(f"{planned.place} sampling"),
                  on_frame=lambda planned, done: tell(f"{planned.place} decoding and encoding"))
    prepared = prepare(clip, *bundled.load(plain_host()), Encoding(), lambda name: None, lambda *_: Path(), watch)
    number = len(list(folder.glob("*.mp4")))
    tell("0 checking files")
    made = make_clip(prepared, SegmentFolder(folder / "segments"), Mp4(lambda: folder / f"clip_{number}.mp4"),
                     on_segment=lambda place, files: tell(f"{place} between two segments"))
    tell(f"done {made.written.path}")


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, "--work", str(folder)], stdout=subprocess.PIPE, text=True)


def finish(folder: Path) -> tuple[str, float]:
    """Run to the end; return the hash of the MP4, and the seconds from the first word on."""
    process = start(folder)
    assert process.stdout is not None
    begin, last = 0.0, ""
    for line in process.stdout:
        begin, last = begin or time.monotonic(), line
    if process.wait() or not last.startswith("done "):
        raise SystemExit("the run failed")
    return hashlib.sha256(Path(last[5:].strip()).read_bytes()).hexdigest(), time.monotonic() - begin


def files_in(folder: Path) -> dict[str, str]:
    """Return the hash of every file of the segments, unfinished ones left out."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "segments").glob("[!.]*")}


def kill_once(folder: Path, after: float) -> str | None:
    """Kill a run so many seconds after its first word; return what it was doing, None when it was done before."""
    process = start(folder)
    assert process.stdout is not None
    said = process.stdout.readline()
    time.sleep(after)
    process.kill()
    for line in process.stdout:
        said = line
    process.wait()
    return None if said.startswith("done") else said.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        return work(args.work)
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as base:
        unbroken = Path(base, "unbroken")
        unbroken.mkdir()
        expected, seconds = finish(unbroken)
        print(f"In one go: {seconds:.0f} s.\n\n| kill | while | files kept | unfinished files left behind |\n"
              "|---|---|---|---|", flush=True)
        kills, clips, doing = 0, 0, Counter[str]()
        while kills < args.kills:
            clips += 1
            folder = Path(base, f"clip {clips}")
            folder.mkdir()
            while kills < args.kills:
                said = kill_once(folder, dice.uniform(0, seconds / 3))
                if said is None:
                    break
                kills += 1
                place, _, what = said.partition(" ")
                doing[what] += 1
                left = len(list((folder / "segments").glob(".*")))
                print(f"| {kills} | segment {place}, {what} | {len(files_in(folder))} | {left} |", flush=True)
            found, _ = finish(folder)
            same = found == expected and files_in(folder) == files_in(unbroken)
            print(f"| clip {clips} | {'the same bytes' if same else 'DIFFERENT'} | {len(files_in(folder))} | |")
            if not same:
                raise SystemExit(1)
        print(f"\n{kills} kills in {clips} clips: {', '.join(f'{n} while {what}' for what, n in doing.items())}.")
    return None


if __name__ == "__main__":
    main()
