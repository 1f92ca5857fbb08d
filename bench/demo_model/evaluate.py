"""Measure the bundled demo model on pictures and seeds it never saw, through the pack's own pipeline.

usage: evaluate.py [--pictures 20] [--steps 30] [--model DIR] [--json FILE] [--frames DIR]
                   [--only vae,experts,lora,prompts]

Settings are the nodes' defaults: 128x128, 33 frames, 30 steps, guidance 5, shift 5, boundary 0.9. Prompts are the
canonical ones of clips.MOTIONS. About 40 minutes on 2 cores for 20 pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from clips import MOTIONS, Scene, psnr, random_clip, render  # noqa: E402
from measure import agrees, merge_lora, saturation  # noqa: E402
from pictures import canvas  # noqa: E402

from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.condition import encode_first_frame  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.latents import normalise  # noqa: E402
from pipeline.models.text_encoder import encode_prompts  # noqa: E402
from pipeline.request import HIGH, LOW, Sampling  # noqa: E402
from pipeline.sampling.denoise import guided, velocity_of  # noqa: E402
from pipeline.sampling.hooks import NEGATIVE, POSITIVE, ModelInputs, observe  # noqa: E402
from pipeline.sampling.sampler import sample  # noqa: E402

SIDE, FRAMES = 128, 33
GUIDANCES = (1.0, 5.0)
SIGMAS = (0.999, 0.97, 0.95, 0.93, 0.91, 0.89, 0.87, 0.85, 0.8, 0.7, 0.5, 0.3, 0.1)


def model_files(folder: Path) -> list[Path]:
    """Return both experts', the text encoder's and the VAE's file of a folder that is laid out as models/demo."""
    files = (bundled.DEMO_HIGH, bundled.DEMO_LOW, bundled.DEMO_TEXT_ENCODER, bundled.DEMO_VAE)
    return [folder / file.relative_to(bundled.DEMO) for file in files]


def held_out_scene(index: int, with_ball: bool) -> Scene:
    """Scene number `index`, never trained on: drawn shapes or a held-out photograph, as its seed has it."""
    g = torch.Generator().manual_seed(50_000 + index)
    return Scene.random(SIDE, SIDE, g, with_ball, canvas(2 * SIDE, 2 * SIDE, g, held_out=True))


def image_of(clip: torch.Tensor) -> torch.Tensor:
    """First frame of a clip (3, F, H, W), -1..1, as a ComfyUI IMAGE (1, H, W, 3), 0..1."""
    return ((clip[:, 0] + 1) / 2).permute(1, 2, 0)[None]


def measure_vae(vae, count: int) -> dict:
    """PSNR of decode(encode(clip)) on held-out clips of 128x128 and 33 frames."""
    values = []
    for index in range(count):
        g = torch.Generator().manual_seed(70_000 + index)
        clip = random_clip(SIDE, SIDE, FRAMES, g, canvas(2 * SIDE, 2 * SIDE, g, held_out=True))
        pixels = ((clip + 1) / 2).permute(1, 2, 3, 0)
        values.append(psnr(vae.decode(vae.encode(pixels))[0] * 2 - 1, pixels * 2 - 1))
    return {"clips": count, "psnr_mean": statistics.mean(values), "psnr_min": min(values), "psnr": values}


@torch.no_grad()
def measure_experts(model, clip_encoder, vae, count: int) -> list[dict]:
    """One row a noise level and guidance: mean square error of both experts' velocity on held-out clips."""
    errors = {(guidance, sigma): ([], []) for guidance in GUIDANCES for sigma in SIGMAS}
    names = list(MOTIONS)
    for index in range(count):
        motion = names[index % len(names)]
        clip = render(held_out_scene(300 + index, motion.startswith("ball")), motion, "", FRAMES)
        clean = normalise(vae.encode(((clip + 1) / 2).permute(1, 2, 3, 0)))
        condition = encode_first_frame(vae, image_of(clip), SIDE, SIDE, FRAMES).channels()
        positive, negative = (c[0][0] for c in encode_prompts(clip_encoder, MOTIONS[motion][0], ""))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
        for (guidance, sigma), of_experts in errors.items():
            for expert, values in zip(model.experts.values(), of_experts, strict=True):
                predict = guided(velocity_of(expert.model, {POSITIVE: positive, NEGATIVE: negative}),
                                 ModelInputs(condition), guidance)
                noisy = (1 - sigma) * clean + sigma * noise
                velocity = predict(noisy, torch.tensor(sigma * 1000))
                values.append((velocity - (noise - clean)).pow(2).mean().item())
    return [{"guidance": guidance, "sigma": sigma, "high": statistics.mean(high), "low": statistics.mean(low)}
            for (guidance, sigma), (high, low) in errors.items()]


def measure_prompts(model, clip_encoder, vae, pictures: list[int], steps: int, keep: Path | None) -> list[dict]:
    """One row a clip: does it do what the prompt says, and does it begin with the picture."""
    rows = []
    for motion, texts in MOTIONS.items():
        for index in pictures:
            scene = held_out_scene(index, with_ball=motion.startswith("ball"))
            image = image_of(render(scene, motion, "", 1))
            start = time.time()
            first = encode_first_frame(vae, image, SIDE, SIDE, FRAMES)
            positive, negative = encode_prompts(clip_encoder, texts[0], "")
            calls: list[str] = []
            latents = sample(model, positive, negative, first, Sampling(seed=9000 + index, num_inference_steps=steps),
                             observe(before_pass=lambda step, expert, calls=calls: calls.append(expert)))
            frames = vae.decode(latents)[0].permute(0, 3, 1, 2)
            seconds = time.time() - start
            good, figures = agrees(motion, frames, scene.ball)
            rows.append({
                "motion": motion, "picture": index, "agrees": bool(good), **figures,
                "first_frame_psnr": psnr(frames[0] * 2 - 1, image[0].permute(2, 0, 1) * 2 - 1),
                "finite": bool(frames.isfinite().all()), "darkest_frame": frames.mean((1, 2, 3)).min().item(),
                "high_calls": calls.count(HIGH), "low_calls": calls.count(LOW), "seconds": seconds,
            })
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                torch.save(frames.mul(255).byte(), keep / f"{motion.replace(' ', '-')}-{index}.pt")
        done = [r["agrees"] for r in rows if r["motion"] == motion]
        print(f"{motion:15} {sum(done)}/{len(done)}", flush=True)
    return rows


def measure_lora(folder: Path, files: list[Path], count: int) -> dict:
    """Saturation of the last frame with the LoRA pair on neither, one or both experts."""
    weights = [load_file(f) for f in files[:2]]
    loras = [load_file(folder / "loras" / f"wan2.2_i2v_demo_drain_colours_{n}_noise.safetensors")
             for n in ("high", "low")]
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, on in (("neither", (0, 0)), ("high", (1, 0)), ("low", (0, 1)), ("both", (1, 1))):
            paths = [Path(scratch, f"{name}-{e}.safetensors") for e in ("high", "low")]
            for path, base, lora, used in zip(paths, weights, loras, on, strict=True):
                save_file(merge_lora(base, lora, used), path)
            model, clip_encoder, vae = bundled.load(plain_host(), *paths, *files[2:])
            values = []
            for index in range(count):
                image = image_of(render(held_out_scene(600 + index, False), "still", "", 1))
                first = encode_first_frame(vae, image, SIDE, SIDE, FRAMES)
                prompts = encode_prompts(clip_encoder, "the camera pans left", "")
                latents = sample(model, *prompts, first, Sampling(seed=index))
                values.append(saturation(vae.decode(latents)[0, -1].movedim(-1, 0)))
            found[name] = statistics.mean(values)
            print(f"LoRA on {name}: saturation {found[name]:.3f}", flush=True)
    return found


def summary(rows: list[dict]) -> dict:
    """Agreement by prompt and the figures that hold over all clips."""
    still = [r for r in rows if r["motion"] == "still"]
    return {
        "agreement": {m: statistics.mean(r["agrees"] for r in rows if r["motion"] == m)
                      for m in MOTIONS if any(r["motion"] == m for r in rows)},
        "first_frame_psnr_mean": statistics.mean(r["first_frame_psnr"] for r in rows),
        "first_frame_psnr_min": min(r["first_frame_psnr"] for r in rows),
        "all_finite": all(r["finite"] for r in rows),
        "darkest_frame_but_fade": min(r["darkest_frame"] for r in rows if r["motion"] != "fade to black"),
        "still_brightness_drift_mean": statistics.mean(r["drift"] for r in still) if still else None,
        "calls": sorted({(r["high_calls"], r["low_calls"]) for r in rows}),
        "seconds_median": statistics.median(r["seconds"] for r in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--first-picture", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", type=Path, default=bundled.DEMO)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--only", default="vae,experts,lora,prompts")
    args = parser.parse_args()
    files = model_files(args.model)
    model, clip_encoder, vae = bundled.load(plain_host(), *files)
    found: dict = {}
    if "vae" in args.only:
        found["vae"] = measure_vae(vae, 20)
        print(f"VAE: {found['vae']['psnr_mean']:.2f} dB, worst {found['vae']['psnr_min']:.2f}", flush=True)
    if "experts" in args.only:
        found["experts"] = measure_experts(model, clip_encoder, vae, 14)
        for row in found["experts"]:
            print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    if "lora" in args.only:
        found["lora"] = measure_lora(args.model, files, 6)
    if "prompts" in args.only:
        pictures = list(range(args.first_picture, args.first_picture + args.pictures))
        found["prompts"] = measure_prompts(model, clip_encoder, vae, pictures, args.steps, args.frames)
        found["summary"] = summary(found["prompts"])
        print(json.dumps(found["summary"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
