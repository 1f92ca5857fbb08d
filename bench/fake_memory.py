"""Peak memory of every part of a clip at full size, and what ComfyUI does with it on devices of 8 to 80 GB.

usage: fake_memory.py [--json FILE]

No GPU is needed: the weights are files of full size that hold nothing, and the device has no numbers
(tests/support/fake_cuda.py, which says what is not counted). Linux, for the files; a few minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.lora.apply import use_loras  # noqa: E402
from pipeline.models.expert import load_expert  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.load import Wan22Model  # noqa: E402
from pipeline.models.memory import fit  # noqa: E402
from pipeline.models.text_encoder import TextEncoder, encode_prompts  # noqa: E402
from pipeline.models.umt5 import load_text_encoder  # noqa: E402
from pipeline.models.vae import DECODE_BYTES_A_PIXEL, ENCODE_BYTES_A_PIXEL, SHARES, WanVAE, load_vae  # noqa: E402
from pipeline.request import Lora  # noqa: E402
from pipeline.sampling.sampler import pass_bytes  # noqa: E402
from tests.support import full_size  # noqa: E402
from tests.support.comfy_on_cuda import comfy_on  # noqa: E402
from tests.support.fake_cuda import DEVICE, FakeCuda  # noqa: E402
from tests.support.full_size_parts import SIZES, decode_peak, encode_peak, latents_of, pass_peak  # noqa: E402

FRAMES = (33, 49, 81)
DEVICES = (8, 12, 16, 24, 32, 80)
FP8 = torch.float8_e4m3fn
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "float32": torch.float32, "fp8_scaled": FP8}
Row = dict[str, float | str]


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f}"


def parts_of_experts(folder: Path) -> list[Row]:
    """Measure the peaks of a pass by kind, size and frames, beside what the pack estimates."""
    rows: list[Row] = []
    for name, dtype in DTYPES.items():
        path = full_size.write_expert(folder / "expert.safetensors", dtype)
        lora = full_size.write_lora(folder / "lora.safetensors", 32)
        with FakeCuda() as gpu:
            plain = load_expert(path, plain_host(str(DEVICE)))
            model, _ = use_loras(Wan22Model(plain, plain), [Lora(str(lora), 1.0)], Path, None, None)
            kinds = {f"a pass, {name}": (plain, False)}
            if name == "bf16":
                kinds |= {"a pass, bf16, LoRA of rank 32": (model.high, False),
                          "both texts in one pass, bf16": (plain, True)}
            for kind, (expert, batched) in kinds.items():
                for size, (width, height) in SIZES.items():
                    for frames in FRAMES:
                        latents = latents_of(width, height, frames)
                        peak = pass_peak(gpu, expert, latents, batched=batched)
                        estimate = pass_bytes(expert, tuple(latents.shape)) * (2 if batched else 1)
                        rows.append({"part": kind, "clip": f"{size} x {frames}", "measured": peak.bytes,
                                     "estimated": estimate, "operation": peak.operation})
            del kinds, expert, model, plain
    return rows


def parts_of_vae(folder: Path) -> list[Row]:
    """Measure the peaks of encoding and decoding, whole and in tiles; the number of frames does not matter."""
    rows: list[Row] = []
    for name in ("bf16", "float32"):
        path = full_size.write_vae(folder / "vae.safetensors", DTYPES[name])
        for size, (width, height) in SIZES.items():
            with FakeCuda() as gpu:
                vae = WanVAE(*load_vae(path, plain_host(str(DEVICE))))
                a_byte = width * height * DTYPES[name].itemsize // 2

                def row(part: str, measured: int, estimated: float, size: str = size) -> None:
                    rows.append({"part": part, "clip": size, "measured": measured, "estimated": estimated})

                row(f"VAE encode, {name}", encode_peak(gpu, vae, width, height).bytes, ENCODE_BYTES_A_PIXEL * a_byte)
                whole, _, _ = decode_peak(gpu, vae, width, height, 10**12)
                row(f"VAE decode, {name}", whole.bytes, DECODE_BYTES_A_PIXEL * a_byte)
                for share in (0.75, 0.3):
                    free = int(whole.bytes * share)
                    peak, _, tiles = decode_peak(gpu, vae, width, height, free)
                    row(f"the same in {tiles} tiles, for {gigabytes(free)} GB", peak.bytes, free)
                del vae
    return rows


def parts_of_text(folder: Path) -> list[Row]:
    """Measure the weights on the device and the peak of encoding both prompts, by this pack's own encoder."""
    rows: list[Row] = []
    for name in ("fp16", "bf16", "fp8_scaled"):
        path = full_size.write_text_encoder(folder / "text.safetensors", DTYPES[name])
        with FakeCuda() as gpu:
            encoder = TextEncoder(*load_text_encoder(path, plain_host(str(DEVICE))))
            with gpu.peak() as peak:
                encode_prompts(encoder, "a (red:1.2) cat runs", "blurred")
            rows.append({"part": f"text, {name}", "weights": peak.before, "measured": peak.bytes})
            del encoder
    return rows


def pass_in_comfyui(path: Path, latents: torch.Tensor, total: int) -> Row:
    """Run one pass on a device of `total` bytes; return what preflight says, the weights there and the pass's peak.

    A peak of 0: the device is out of memory.
    """
    gpu = FakeCuda(total)
    with comfy_on(gpu) as host:
        expert = load_expert(path, host)
        said = fit(expert.size, pass_bytes(expert, tuple(latents.shape)), total).value
        try:
            peak = pass_peak(gpu, expert, latents).bytes
        except torch.OutOfMemoryError:
            peak = 0
        return {"says": said, "peak": peak, "weights": gpu.live}


def vae_in_comfyui(path: Path, width: int, height: int, total: int) -> Row:
    """Return how the VAE would encode and decode on a device of `total` bytes: whole, or in so many tiles."""
    with comfy_on(FakeCuda(total)) as host:
        vae = WanVAE(*load_vae(path, host))
        vae.resident.load_to_device(0)
        free = vae.resident.available_bytes()
        grid = vae.decode_grid(height // 8, width // 8, int(free * SHARES[0]))
        tiles = len(list(grid.tiles()))
        return {"encode": "whole" if ENCODE_BYTES_A_PIXEL * width * height <= free else "in tiles",
                "decode": "whole" if tiles == 1 else f"in {tiles} tiles"}


def devices(folder: Path) -> list[dict[str, Row | str | int]]:
    """Return what preflight says of each device, and what ComfyUI's manager does for one pass and for the VAE."""
    paths = {name: full_size.write_expert(folder / f"{name}.safetensors", DTYPES[name])
             for name in ("fp8_scaled", "fp16")}
    vae = full_size.write_vae(folder / "vae.safetensors", torch.bfloat16)
    return [{"device": total, "clip": f"{size} x 81", "vae": vae_in_comfyui(vae, width, height, total * 2**30),
             **{name: pass_in_comfyui(path, latents_of(width, height, 81), total * 2**30)
                for name, path in paths.items()}}
            for total in DEVICES for size, (width, height) in SIZES.items()]


def table_of_parts(rows: list[Row], clips: list[str]) -> None:
    print(f"| GB | {' | '.join(clips)} |\n|---|{'---|' * len(clips)}")
    for part in dict.fromkeys(str(row["part"]) for row in rows):
        found = {row["clip"]: row for row in rows if row["part"] == part}
        cells = [f"{gigabytes(row['measured'])} ({gigabytes(row['estimated'])})" if (row := found.get(clip)) else ""
                 for clip in clips]
        print(f"| {part} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        folder = Path(scratch)
        experts = parts_of_experts(folder)
        table_of_parts(experts, [f"{size} x {frames}" for size in SIZES for frames in FRAMES])
        vae = parts_of_vae(folder)
        table_of_parts(vae, list(SIZES))
        text = parts_of_text(folder)
        print("| | weights GB | encoding GB |\n|---|---|---|")
        for row in text:
            print(f"| {row['part']} | {gigabytes(row['weights'])} | {gigabytes(row['measured'])} |")
        found = devices(folder)
    columns = ["GiB", "clip", "fp8_scaled", "weights + pass", "fp16", "weights + pass", "first frame", "decode"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in found:
        cells = [row["device"], row["clip"]]
        for one in (row["fp8_scaled"], row["fp16"]):
            fits = f"{gigabytes(one['weights'])} + {gigabytes(one['peak'])}"
            cells += [one["says"], fits if one["peak"] else "out of memory"]
        print(f"| {' | '.join(map(str, [*cells, row['vae']['encode'], row['vae']['decode']]))} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps([experts, vae, text, found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
