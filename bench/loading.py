"""Measure time and memory to open an expert, beside diffusers' and ComfyUI's own loaders, in one run.

usage: loading.py [--blocks 8] [--folder DIR] [--json FILE]
       loading.py --pair [--folder DIR] [--json FILE]

Writes an expert of true width (5120, feed-forward 13824) with that many of the 40 blocks and random weights, as fp16,
fp8_scaled and GGUF Q4_K, opens each with every loader in a process of its own, and runs one forward pass of a few
tokens on the CPU. Seconds to open and to the first pass; anonymous memory (what swapping or the RAM must hold) and
mapped memory (pages of the file, which the system drops as it likes), from Linux's smaps_rollup.

With --pair: two whole experts, opened one after the other in one process. Their files are holes of the full size,
which take no room on the disk; nothing is read of them but their headers and scales. Each loader opens them twice, and
the second time counts: what is read is then in the system's cache.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.full_size import EXPERT, expert_shapes, is_linear_of_block, write_expert  # noqa: E402

TEXT = (1, 512, EXPERT["text_dim"])
PAIR = {"fp16": ("ours", "diffusers"), "fp8_scaled": ("ours", "comfyui")}
"""ComfyUI makes 57 GB of float32 of each fp16 file on a CPU."""
LOADERS = {"fp16": ("ours", "diffusers", "comfyui"), "fp8_scaled": ("ours", "comfyui"), "Q4_K": ("ours", "diffusers")}
"""diffusers opens fp8_scaled files without their scales, GGUF only with accelerate; ComfyUI itself reads no GGUF."""


def random_weights(blocks: int) -> dict[str, torch.Tensor]:
    """Return an expert's weights in float16, at random, under the original names."""
    g = torch.Generator().manual_seed(0)
    half = {}
    # 512 rows of noise over and over: drawing them all would take minutes.
    for name, shape in expert_shapes(num_layers=blocks).items():
        rows = (torch.randn(min(shape[0], 512), *shape[1:], generator=g) * 0.02).half()
        half[name] = rows.repeat(-(-shape[0] // 512), *[1] * (len(shape) - 1))[: shape[0]].contiguous()
    return half


def scaled_to_fp8(half: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights with the linear layers of the blocks in fp8, each with its scale."""
    eight: dict[str, torch.Tensor] = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}
    for name, weight in half.items():
        packed = is_linear_of_block(name, weight.shape)
        eight[name] = (weight * 4000).to(torch.float8_e4m3fn) if packed else weight
        if packed:
            eight[name.replace(".weight", ".scale_weight")] = torch.tensor(1 / 4000)
    return eight


def write(folder: Path, blocks: int) -> dict[str, Path]:
    """Write three files of the same random weights but for Q4_K's; return them by their layouts."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(1)
    files = {"fp16": folder / "expert_fp16.safetensors", "fp8_scaled": folder / "expert_fp8_scaled.safetensors",
             "Q4_K": folder / "expert_Q4_K.gguf"}
    half = random_weights(blocks)
    save_file(half, files["fp16"])
    save_file(scaled_to_fp8(half), files["fp8_scaled"])
    writer = GGUFWriter(str(files["Q4_K"]), "wan")
    kind = GGMLQuantizationType.Q4_K
    values, size = GGML_QUANT_SIZES[kind]
    for name, weight in half.items():
        if is_linear_of_block(name, weight.shape):
            blocks_a_row = weight.shape[1] // values
            packed = torch.randint(0, 256, (len(weight), blocks_a_row, size), dtype=torch.uint8, generator=g)
            packed[..., :4] = torch.tensor([1e-4, 1e-4]).half().view(torch.uint8)  # scale and minimum of each block
            writer.add_tensor(name, packed.flatten(1).numpy(), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return files


def memory() -> dict[str, float]:
    """Return this process' resident memory in GiB, anonymous and of files.

    Linux, Documentation/filesystems/proc.rst.
    """
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return {"anonymous": kilobytes["Anonymous"] / 2**20, "mapped": (kilobytes["Rss"] - kilobytes["Anonymous"]) / 2**20}


def opened_by_us(path: Path) -> Any:
    from pipeline.host.ops import comfy_host
    from pipeline.models.expert import load_expert

    expert = load_expert(path, comfy_host())

    def run(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        expert.resident.load_to_device(0)
        return expert.model(x, t, text, return_dict=False)[0]

    return run, expert.compute_dtype


def opened_by_diffusers(path: Path) -> Any:
    from diffusers import GGUFQuantizationConfig, WanTransformer3DModel

    with tempfile.TemporaryDirectory() as folder:
        blocks = 1 + max(int(n.split(".")[1]) for n in _names(path) if n.startswith("blocks."))
        Path(folder, "config.json").write_text(json.dumps(EXPERT | {"num_layers": blocks}), "utf-8")
        gguf = {"quantization_config": GGUFQuantizationConfig(compute_dtype=torch.float32)}
        model = WanTransformer3DModel.from_single_file(
            str(path), config=folder, **({"torch_dtype": torch.float32, **gguf} if path.suffix == ".gguf" else
                                         {"torch_dtype": torch.float16}))
    return lambda x, t, text: model(x, t, text, return_dict=False)[0], model.dtype


def opened_by_comfyui(path: Path) -> Any:
    import comfy.model_management
    import comfy.sd

    patcher = comfy.sd.load_diffusion_model(str(path))

    def run(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        comfy.model_management.load_models_gpu([patcher])
        return patcher.model.diffusion_model(x, t, context=text)

    return run, patcher.model.manual_cast_dtype or patcher.model.get_dtype()


OPENED_BY = {"ours": opened_by_us, "diffusers": opened_by_diffusers, "comfyui": opened_by_comfyui}


def _names(path: Path) -> list[str]:
    if path.suffix == ".gguf":
        from gguf import GGUFReader

        return [t.name for t in GGUFReader(str(path)).tensors]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.keys())


def import_all() -> None:
    """Import what opening needs, so that no measurement holds it."""
    from tests.support.comfy_in_process import comfy_host

    comfy_host()
    for name in ("comfy.sd", "diffusers.loaders.single_file_utils", "diffusers.quantizers.gguf.utils",
                 "diffusers.models.transformers.transformer_wan"):
        importlib.import_module(name)


@torch.inference_mode()
def measure(loader: str, path: Path) -> dict[str, float]:
    """Open and run once, in this process."""
    import_all()
    before, start = memory(), time.perf_counter()
    run, dtype = OPENED_BY[loader](path)
    opened, after_open = time.perf_counter() - start, memory()
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(1, 36, 1, 4, 4, generator=g).to(dtype), torch.randn(TEXT, generator=g).to(dtype)
    found = run(x, torch.tensor([500.0]), text)
    first, after_run = time.perf_counter() - start, memory()
    return {"opening_s": opened, "first_pass_s": first, "std": found.float().std().item(),
            "opening_anonymous_gib": after_open["anonymous"] - before["anonymous"],
            "anonymous_gib": after_run["anonymous"] - before["anonymous"],
            "mapped_gib": after_run["mapped"] - before["mapped"]}


def measure_pair(loader: str, *paths: Path) -> dict[str, Any]:
    """Open all in this process, and keep them open."""
    import_all()
    before, start = memory(), time.perf_counter()
    try:
        opened = [OPENED_BY[loader](path) for path in paths]
    except (OSError, RuntimeError) as error:
        return {"error": str(error).partition("\n")[0][:80]}
    seconds = time.perf_counter() - start
    return {"opened": len(opened), "opening_s": seconds, "anonymous_gib": memory()["anonymous"] - before["anonymous"]}


def in_own_process(*arguments: str | Path) -> dict[str, Any]:
    """Return what this script prints with the arguments, from its JSON."""
    answer = subprocess.run([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, check=True,
                            env={**os.environ, "HF_HUB_OFFLINE": "1"})
    return json.loads(answer.stdout.splitlines()[-1])


def compare_pairs(folder: Path) -> list[dict[str, Any]]:
    """Open two whole experts of each layout with each loader."""
    rows = []
    print("| two files | GiB each | loader | opening both s | anonymous GiB |")
    print("|---|---|---|---|---|")
    for layout, dtype in (("fp16", torch.float16), ("fp8_scaled", torch.float8_e4m3fn)):
        paths = [write_expert(folder / f"{layout}_{noise}.safetensors", dtype) for noise in ("high", "low")]
        for loader in PAIR[layout]:
            found = [in_own_process("--one-pair", loader, *paths) for _ in range(2)][-1]
            rows.append({"layout": layout, "gib": paths[0].stat().st_size / 2**30, "loader": loader} | found)
            told = "{opening_s:.2f} | {anonymous_gib:.2f}" if "opened" in found else "{error} | "
            print(f"| {layout} | {rows[-1]['gib']:.1f} | {loader} | {told.format(**found)} |", flush=True)
    return rows


def compare_loaders(folder: Path, blocks: int) -> list[dict[str, Any]]:
    """Open and run an expert of each layout with each loader."""
    rows = []
    print("| file | GiB | loader | opening s | first pass s | anonymous GiB, opened | after a pass | mapped GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for layout, path in write(folder, blocks).items():
        size = path.stat().st_size / 2**30
        for loader in LOADERS[layout]:
            row = in_own_process("--one", loader, path)
            rows.append({"layout": layout, "gib": size, "loader": loader} | row)
            print(f"| {layout} | {size:.2f} | {loader} | {row['opening_s']:.2f} | {row['first_pass_s']:.2f} | "
                  f"{row['opening_anonymous_gib']:.2f} | {row['anonymous_gib']:.2f} | {row['mapped_gib']:.2f} |",
                  flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="where to write the files; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pair", action="store_true", help="two whole experts in one process, opened only")
    parser.add_argument("--one", nargs=2, metavar=("LOADER", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--one-pair", nargs=3, metavar=("LOADER", "HIGH", "LOW"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one or args.one_pair:
        loader, *paths = args.one or args.one_pair
        print(json.dumps((measure if args.one else measure_pair)(loader, *map(Path, paths))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        rows = compare_pairs(Path(scratch)) if args.pair else compare_loaders(Path(scratch), args.blocks)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
