"""Long clips of the bundled model by every way to make them, over ten pictures: motion over the joints, seams, drift.

usage: long.py [--pictures 10] [--steps 10] [--models FOLDER] [--sheet FILE.png] [--json FILE]

Three segments of 33 frames, 128x128, "the camera pans left", a seed of its own each. The peers: the naive chain (the
last frame is the next first frame, nothing matched or faded) and ComfyUI's context windows (comfy/context_windows.py,
one run of as many frames; windows of 33 frames with 13 in common, otherwise the defaults of Wan Context Windows, with
and without retain_first_frame), measured where the joints of the segments would be. Then five segments of "nothing
moves", with and without matched colours.

Speed error: how far the velocity over a joint is from the median of the clip, in percent of it. Kept: the median
velocity of the last 29 frames in percent of that of the first 33. Seam: pipeline/quality/seams.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.camera import picture  # noqa: E402
from tests.support.comfy_in_process import import_comfyui  # noqa: E402

import_comfyui()

import comfy.context_windows as windows  # noqa: E402
import comfy.sd  # noqa: E402

from bench.ksampler import ksampler_stages  # noqa: E402
from pipeline.long_clip.clip import make_clip  # noqa: E402
from pipeline.long_clip.folder import SegmentFolder  # noqa: E402
from pipeline.long_clip.frames import Colours  # noqa: E402
from pipeline.long_clip.make import LongClip, Watch, prepare  # noqa: E402
from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.condition import encode_first_frame  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.text_encoder import encode_prompts  # noqa: E402
from pipeline.motion.align import align, small_grey  # noqa: E402
from pipeline.quality.lab import mean_lab  # noqa: E402
from pipeline.quality.seams import REACH, measure_seam  # noqa: E402
from pipeline.request import HIGH, LOW, Lora, Sampling  # noqa: E402
from pipeline.segments import FRAMES, LAST_FRAME, SVI, Segment  # noqa: E402
from pipeline.video.encoding import Encoding  # noqa: E402
from pipeline.video.join_settings import EVERY_FRAME, OFF  # noqa: E402
from pipeline.video.save import Mp4  # noqa: E402
from pipeline.video.source import file_source  # noqa: E402

SIDE, LENGTH, STEP = 128, 33, 4
PAN, STILL = "the camera pans left", "nothing moves"
UNMATCHED = Colours(1.0, OFF)


@dataclass
class Bench:
    """The bundled model, ours and ComfyUI's, and what was measured: way -> measure -> values."""

    steps: int
    loras: tuple[Lora, ...]
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    sheet: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loaded = bundled.load(plain_host())
        self.core = {HIGH: comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH)),
                     LOW: comfy.sd.load_diffusion_model(str(bundled.DEMO_LOW))}

    def note(self, way: str, **values: float) -> None:
        for name, value in values.items():
            self.rows.setdefault(way, {}).setdefault(name, []).append(value)

    def long_clip(self, image: torch.Tensor, prompt: str, count: int, **settings: Any,
                  ) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """Return the frames (F, H, W, 3) of a long clip as its file shows them, and where its joints are.

        A joint is the first frame that is of the segment behind it, alone or faded, and how many are faded.
        """
        clip = LongClip(image, tuple(Segment(prompt, seed, LENGTH) for seed in range(1, count + 1)), SIDE, SIDE,
                        Sampling(0, num_inference_steps=self.steps), **settings)
        encoding = Encoding(crf=1)
        with tempfile.TemporaryDirectory() as base:
            prepared = prepare(clip, *self.loaded, encoding, lora_path, no_link, Watch())
            made = make_clip(prepared, SegmentFolder(Path(base, "segments")),
                             Mp4(lambda: Path(base, "clip.mp4"), encoding))
            planned = prepared.plan.segments
            joints = [(sum(one.stop - one.start for one in planned[:place]), planned[place].fade)
                      for place in range(1, count)]
            return torch.stack(list(file_source(made.written.path, "clip").frames())), joints

    def by_windows(self, image: torch.Tensor, frames: int, *, retain: bool) -> torch.Tensor:
        """Return the frames of one run over all, by ComfyUI's context windows."""
        _, encoder, vae = self.loaded
        models = {}
        for which, model in self.core.items():  # as comfy_extras/nodes_context_windows.py does it
            models[which] = model.clone()
            models[which].model_options["context_handler"] = windows.IndexListContextHandler(
                context_schedule=windows.get_matching_context_schedule(windows.ContextSchedules.UNIFORM_STANDARD),
                fuse_method=windows.get_matching_fuse_method(windows.ContextFuseMethods.PYRAMID),
                context_length=(LENGTH - 1) // 4 + 1, context_overlap=13 // 4, dim=2, freenoise=True,
                cond_retain_index_list="0" if retain else "")
            windows.create_prepare_sampling_wrapper(models[which])
            windows.create_sampler_sample_wrapper(models[which])
        known = encode_first_frame(vae, image, SIDE, SIDE, frames)
        texts = encode_prompts(encoder, PAN, "")
        return vae.decode(ksampler_stages(models, *texts, known, Sampling(1, num_inference_steps=self.steps),
                                          lambda: None))[0]

    def measure_pan(self, way: str, frames: torch.Tensor, joints: list[tuple[int, int]]) -> None:
        """Measure a clip that pans. joints: (first frame behind it, faded frames)."""
        self.sheet.append(torch.cat([frames[at] for start, _ in joints for at in range(start - 2, start + 3)], 1))
        usual = statistics.median(velocities(frames))
        seams = [measure_seam(frames[max(0, start - REACH) : start], frames[start : start + REACH], frames[0],
                              faded=faded) for start, faded in joints]
        first, last = (statistics.median(velocities(part)) for part in (frames[:LENGTH], frames[-29:]))
        self.note(way, error=statistics.mean(100 * abs(seam.velocity[0] - usual) / max(abs(usual), 0.05)
                                             for seam in seams),
                  seam=statistics.mean(seam.ratio for seam in seams), kept=100 * last / first if first else 0.0,
                  colours=statistics.mean(seam.colour_step for seam in seams))
        print(way, {name: round(values[-1], 2) for name, values in self.rows[way].items()}, flush=True)

    def measure(self, image: torch.Tensor) -> None:
        """Make and measure all clips of one picture."""
        def ours(name: str, cross_fade: int = 4, **settings: Any) -> torch.Tensor:
            frames, joints = self.long_clip(image, PAN, 3, cross_fade=cross_fade, **settings)
            self.measure_pan(name, frames, joints)
            return frames

        frames = ours("ours, 5 known frames", way=FRAMES, known_frames=5)
        ours("ours, 9 known frames", way=FRAMES, known_frames=9)
        ours("ours, last frame", way=LAST_FRAME)
        ours("ours, 5 known frames, not faded", 0, way=FRAMES, known_frames=5)
        ours("ours, last frame, not faded", 0, way=LAST_FRAME)
        if self.loras:
            ours("ours, SVI", way=SVI, loras=self.loras)
        self.measure_pan("naive chain", *self.long_clip(image, PAN, 3, way=LAST_FRAME, cross_fade=0, colours=UNMATCHED))
        for retain in (False, True):
            one = self.by_windows(image, len(frames), retain=retain)
            self.measure_pan(f"context windows{', retain_first_frame' if retain else ''}", one,
                             [(LENGTH, 0), (LENGTH + 28, 0)])
        for way, colours in (("colours matched at the joint", Colours()), ("not matched", UNMATCHED),
                             ("colours of every frame matched", Colours(1.0, EVERY_FRAME))):
            still, _ = self.long_clip(image, STILL, 5, way=FRAMES, colours=colours, cross_fade=4)
            lab = mean_lab(still[[0, -1]])
            self.note(way, drift=float((lab[1] - lab[0]).norm()))
            print(way, self.rows[way]["drift"][-1], flush=True)


def velocities(frames: torch.Tensor) -> list[float]:
    """Return the velocities to the right of frames that are STEP apart, in pixels a frame."""
    grey = small_grey(frames)
    return [align(grey[i], grey[i + STEP]).x * SIDE / STEP for i in range(0, len(grey) - STEP, STEP)]


def lora_path(name: str) -> Path | None:
    return Path(name) if Path(name).is_file() else None


def no_link(*_: object) -> Path:
    raise ValueError("There are no links here.")


def svi_pair(folder: Path | None) -> tuple[Lora, ...]:
    """Return the LoRA pair for SVI in a folder of LoRAs, if there is one."""
    found = sorted((folder or bundled.DEMO / "loras").glob("*svi*.safetensors"))
    pair = [Lora(str(path), 1.0, expert) for expert in ("high", "low") for path in found if expert in path.name]
    return tuple(pair) if len(pair) == 2 else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--models", type=Path, help="a folder like models/demo, to try other weights")
    parser.add_argument("--svi", type=Path, help="a folder with the LoRA pair for SVI")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.models is not None:
        for name in ("DEMO_HIGH", "DEMO_LOW", "DEMO_TEXT_ENCODER", "DEMO_VAE"):
            setattr(bundled, name, args.models / getattr(bundled, name).relative_to(bundled.DEMO))
    bench = Bench(args.steps, svi_pair(args.svi))
    for index in range(args.first, args.first + args.pictures):
        bench.measure(picture(index))
        if args.sheet and index == args.first:
            Image.fromarray((torch.cat(bench.sheet).clamp(0, 1) * 255).byte().numpy()).save(args.sheet)
        bench.sheet.clear()
        if args.json:
            args.json.write_text(json.dumps(bench.rows), "utf-8")
    print(table(bench.rows))


def table(rows: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians as Markdown."""
    lines = ["| way | speed error at the joint, % | seam | colour step | speed kept, % | from 100 |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {way} | {' | '.join(f'{statistics.median(found[name]):.{digits}f}' for name, digits in MEASURES)} |"
              f" {statistics.median(abs(kept - 100) for kept in found['kept']):.1f} |"
              for way, found in rows.items() if "seam" in found]
    lines += ["", "| five segments | drift in L*a*b*, median | worst |", "|---|---|---|"]
    lines += [f"| {way} | {statistics.median(found['drift']):.1f} | {max(found['drift']):.1f} |"
              for way, found in rows.items() if "drift" in found]
    return "\n".join(lines)


MEASURES = (("error", 1), ("seam", 2), ("colours", 2), ("kept", 1))
"""Names and digits."""

if __name__ == "__main__":
    main()
