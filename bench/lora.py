"""Time putting a LoRA on an expert of true width and changing its strength, beside ComfyUI and diffusers.

usage: lora.py [--blocks 8] [--rank 32] [--rounds 3] [--loaders ours comfyui diffusers] [--folder DIR] [--json FILE]

Writes an expert (width 5120, feed-forward 13824, random weights) as fp16 and as fp8_scaled, and a LoRA of all linear
layers of its blocks.
Each loader, in a process of its own, opens the expert and runs it once; then the clock runs from the LoRA's file until
it is in force ("on"), until it is in force at another strength ("strength"), and until it is gone ("off"): ours
(`use_loras`, then the resident is brought, of both files), ComfyUI's (what LoraLoaderModelOnly does, then
load_models_gpu, which merges), diffusers' load_lora_adapter, set_adapters and delete_adapters (needs peft). Then passes
of a few tokens without and with the LoRA, because ours and diffusers' work it out in each pass. Medians of all
rounds, in which the passes alternate. On a CPU, where ComfyUI's and ours calculate in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loading import ROOT, TEXT, random_weights, scaled_to_fp8

sys.path.insert(0, str(ROOT))

from tests.support.full_size import EXPERT, is_linear_of_block

Steps = tuple[Callable[[], None], Callable[[], None], Callable[[], None], Callable[..., torch.Tensor], torch.dtype]
"""On at 0.8, then at 0.5, then off; a pass; its dtype."""
LOADERS = {"ours": ("fp16", "fp8_scaled"), "comfyui": ("fp16",), "diffusers": ("fp16",)}


def write(folder: Path, blocks: int, rank: int) -> tuple[dict[str, Path], Path]:
    """Write the expert in each layout, and the LoRA; return both, the expert by its layout."""
    from safetensors.torch import save_file

    experts = {layout: folder / f"expert_{layout}.safetensors" for layout in ("fp16", "fp8_scaled")}
    lora, half = folder / "lora.safetensors", random_weights(blocks)
    save_file(half, experts["fp16"])
    save_file(scaled_to_fp8(half), experts["fp8_scaled"])
    g, tensors = torch.Generator().manual_seed(2), {}
    for name, weight in half.items():
        if is_linear_of_block(name, weight.shape):
            rows, columns = weight.shape
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = (torch.randn(rank, columns, generator=g) * 0.02).half()
            tensors[f"{module}.lora_B.weight"] = (torch.randn(rows, rank, generator=g) * 0.02).half()
    save_file(tensors, lora)
    return experts, lora


def ours(expert_file: Path, lora_file: Path) -> Steps:
    from pipeline.host.ops import comfy_host
    from pipeline.lora.apply import use_loras
    from pipeline.models.expert import load_expert
    from pipeline.models.load import Wan22Model
    from pipeline.request import Lora

    host = comfy_host()
    expert = load_expert(expert_file, host)
    expert.resident.load_to_device(0)

    def put(*loras: Lora) -> None:
        model, _ = use_loras(Wan22Model(expert, expert), loras, Path, None, lambda: None)
        expert.resident.load_to_device(0, model.high.patches)

    return (lambda: put(Lora(str(lora_file), 0.8, "high")), lambda: put(Lora(str(lora_file), 0.5, "high")), put,
            lambda x, t, text: expert.model(x, t, text, return_dict=False)[0], expert.compute_dtype)


def comfyui(expert_file: Path, lora_file: Path) -> Steps:
    import comfy.model_management
    import comfy.sd
    import comfy.utils

    base = comfy.sd.load_diffusion_model(str(expert_file))

    def put(strength: float) -> None:
        model = base
        if strength:
            tensors = comfy.utils.load_torch_file(str(lora_file), safe_load=True)
            model, _ = comfy.sd.load_lora_for_models(base, None, tensors, strength, 0)
        comfy.model_management.load_models_gpu([model])

    put(0.0)
    return (lambda: put(0.8), lambda: put(0.5), lambda: put(0.0),
            lambda x, t, text: base.model.diffusion_model(x, t, context=text),
            base.model.manual_cast_dtype or base.model.get_dtype())


def diffusers(expert_file: Path, lora_file: Path) -> Steps:
    from diffusers import WanTransformer3DModel
    from diffusers.loaders import WanLoraLoaderMixin
    from safetensors import safe_open

    with safe_open(expert_file, "pt") as file, tempfile.TemporaryDirectory() as folder:
        blocks = 1 + max(int(name.split(".")[1]) for name in file.keys() if name.startswith("blocks."))  # noqa: SIM118
        Path(folder, "config.json").write_text(json.dumps(EXPERT | {"num_layers": blocks}), "utf-8")
        model = WanTransformer3DModel.from_single_file(str(expert_file), config=folder, torch_dtype=torch.float16)

    def on() -> None:
        model.load_lora_adapter(WanLoraLoaderMixin.lora_state_dict(str(lora_file.parent), weight_name=lora_file.name),
                                prefix="transformer", adapter_name="one")
        model.set_adapters("one", 0.8)

    return (on, lambda: model.set_adapters("one", 0.5), lambda: model.delete_adapters("one"),
            lambda x, t, text: model(x, t, text, return_dict=False)[0], model.dtype)


@torch.inference_mode()
def measure(loader: str, expert: Path, lora: Path, rounds: int) -> dict[str, float]:
    from tests.support.comfy_in_process import import_comfyui

    import_comfyui()
    steps: Any = {"ours": ours, "comfyui": comfyui, "diffusers": diffusers}[loader](expert, lora)
    on, strength, off, run, dtype = steps
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 36, 1, 4, 4, generator=g).to(dtype), torch.randn(TEXT, generator=g).to(dtype)
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        answer = work()
        found.setdefault(name, []).append(time.perf_counter() - start)
        return answer

    def passed() -> torch.Tensor:
        return run(x, torch.tensor([500.0]), text).float()

    before = passed()
    for _ in range(rounds):
        timed("plain_pass_s", passed)
        timed("on_s", on)
        with_lora = timed("lora_pass_s", passed)
        timed("strength_s", strength)
        weaker = timed("lora_pass_s", passed)
        timed("off_s", off)
        after = timed("plain_pass_s", passed)
    return {name: statistics.median(seconds) for name, seconds in found.items()} | {
        "change": ((with_lora - before).std() / before.std()).item(),
        "weaker": ((weaker - before).std() / before.std()).item(), "left_over": (after - before).abs().max().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loaders", nargs="+", default=list(LOADERS), choices=LOADERS)
    parser.add_argument("--folder", type=Path, help="where to write the files; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, metavar=("LOADER", "EXPERT", "LORA"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], Path(args.one[1]), Path(args.one[2]), args.rounds)))
        return
    rows = {}
    print("| loader | on s | strength s | off s | pass s | with LoRA s | of it | change at 0.8 | at 0.5 | left over |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        experts, lora = write(Path(scratch), args.blocks, args.rank)
        for loader, layout in [(name, layout) for name in args.loaders for layout in LOADERS[name]]:
            answer = subprocess.run([sys.executable, __file__, "--rounds", str(args.rounds), "--one", loader,
                                     str(experts[layout]), str(lora)],
                                    stdout=subprocess.PIPE, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            row = rows[f"{loader}, {layout}"] = json.loads(answer.stdout.splitlines()[-1])
            print(f"| {loader}, {layout} | {row['on_s']:.2f} | {row['strength_s']:.2f} | {row['off_s']:.2f} | "
                  f"{row['plain_pass_s']:.2f} | {row['lora_pass_s']:.2f} | "
                  f"{row['lora_pass_s'] / row['plain_pass_s']:.2f} | {row['change']:.4f} | {row['weaker']:.4f} | "
                  f"{row['left_over']:.1g} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
