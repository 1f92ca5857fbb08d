"""Milliseconds a step of our loop, beside diffusers' pipeline and ComfyUI's KSampler on the same weights, in one run.

usage: sampling.py [--rounds 5] [--steps 4] [--compile] [--json FILE]

A mid-size expert (1024 wide, 8 blocks, random weights) is written as a file and opened by our loader, by diffusers and
by ComfyUI's load_diffusion_model; all three calculate in the same dtype, with the same text, noise, first frame and
sigmas, at guidance 5 (two passes a step). Rounds go in turns; a step is the time from one callback to the next. The
ratios are of medians; below them the largest difference of the latents, which shows that the work was the same.
--compile adds our loop with the compiled blocks of `compile` of Load Wan 2.2, and what the first round took longer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.comfy_in_process import comfy_host, import_comfyui  # noqa: E402

import_comfyui()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
from diffusers import WanImageToVideoPipeline, WanTransformer3DModel  # noqa: E402
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from bench.ksampler import ksampler  # noqa: E402
from pipeline.models import load as bundled  # noqa: E402
from pipeline.models.compile import check_compiler, compile_blocks  # noqa: E402
from pipeline.models.condition import encode_first_frame  # noqa: E402
from pipeline.models.expert import Expert, load_expert  # noqa: E402
from pipeline.models.host import plain_host  # noqa: E402
from pipeline.models.latents import normalise  # noqa: E402
from pipeline.models.load import Wan22Model  # noqa: E402
from pipeline.request import Sampling  # noqa: E402
from pipeline.sampling.hooks import observe  # noqa: E402
from pipeline.sampling.sampler import sample  # noqa: E402
from pipeline.sampling.schedule import new_scheduler, sigmas_of  # noqa: E402
from tests.support.full_size import expert_shapes  # noqa: E402

TEXT = 512
SIZES = {"num_attention_heads": 8, "num_layers": 8, "ffn_dim": 4096, "text_dim": TEXT}
WIDTH, HEIGHT, FRAMES = 320, 192, 17
GUIDANCE = 5.0


def write_expert(path: Path, dtype: torch.dtype) -> None:
    """Write random weights under the original names; ComfyUI reads the text width from the metadata."""
    g = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=g) * 0.02 + float("norm" in name and name.endswith("weight"))
               for name, shape in expert_shapes(**SIZES).items()}
    config = {"transformer": {"text_dim": TEXT}}
    save_file({name: value.to(dtype) for name, value in weights.items()}, path,
              metadata={"config": json.dumps(config)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    g = torch.Generator().manual_seed(1)
    image = torch.rand(1, HEIGHT, WIDTH, 3, generator=g)
    positive, negative = ([[torch.randn(1, 512, TEXT, generator=g), {}]] for _ in range(2))
    sampling = Sampling(seed=0, num_inference_steps=args.steps, guidance_scale=GUIDANCE)
    device = comfy.model_management.get_torch_device()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "expert.safetensors")
        write_expert(file, torch.float32 if device.type == "cpu" else torch.bfloat16)
        expert = load_expert(file, comfy_host())
        compiled = load_expert(file, comfy_host())
        _, _, vae = bundled.load(plain_host())
        first = encode_first_frame(vae, image, WIDTH, HEIGHT, FRAMES)
        theirs = WanTransformer3DModel(**{k: v for k, v in expert.model.config.items() if not k.startswith("_")})
        theirs.load_state_dict(convert_wan_transformer_to_diffusers(load_file(file)))
        theirs = theirs.to(device, expert.compute_dtype).eval()
        core = comfy.sd.load_diffusion_model(str(file))
    noise = torch.randn(first.latent_shape, generator=torch.Generator().manual_seed(0))
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()

    def ours(tick: Callable[[], None], of: Expert = expert) -> torch.Tensor:
        hooks = observe(after_step=lambda step, clean: tick())
        return normalise(sample(Wan22Model(of, of), positive, negative, first, sampling, hooks))

    def by_diffusers(tick: Callable[[], None]) -> torch.Tensor:
        scheduler = new_scheduler("euler", sigmas_of(sampling))
        scheduler.set_timesteps = lambda steps, device=None: None  # its sigmas are there; the pipeline knows no others
        pipe = WanImageToVideoPipeline(tokenizer=None, text_encoder=None, vae=vae.resident.module, scheduler=scheduler,
                                       transformer=theirs, transformer_2=theirs, boundary_ratio=0.9)
        pipe.set_progress_bar_config(disable=True)

        def on_step(pipe: object, step: int, timestep: object, values: dict) -> dict:
            tick()
            return values

        return pipe(image=image.movedim(-1, 1), prompt_embeds=positive[0][0].to(device),
                    negative_prompt_embeds=negative[0][0].to(device), height=HEIGHT, width=WIDTH, num_frames=FRAMES,
                    num_inference_steps=args.steps, guidance_scale=GUIDANCE, output_type="latent",
                    latents=noise.to(device), callback_on_step_end=on_step).frames.cpu()

    def by_comfyui(tick: Callable[[], None]) -> torch.Tensor:
        found = ksampler(core, positive, negative, first, sigmas, GUIDANCE, noise, torch.zeros_like(noise), tick)
        return normalise(found.float().cpu())

    engines = {"ours": ours, "diffusers": by_diffusers, "comfyui": by_comfyui}
    if args.compile:
        start = time.perf_counter()
        check_compiler(device)
        print(f"trying the compiler took {time.perf_counter() - start:.1f} s")
        compile_blocks(compiled.model)
        engines["compiled"] = lambda tick: ours(tick, compiled)
    steps: dict[str, list[float]] = {name: [] for name in engines}
    latents = {}
    with torch.inference_mode():
        for turn in range(args.rounds + 1):
            for name, engine in engines.items():
                ticks: list[float] = []
                start = time.perf_counter()
                latents[name] = engine(lambda ticks=ticks: ticks.append(time.perf_counter()))
                if not turn:
                    print(f"{name:10} {time.perf_counter() - start:8.1f} s for its first clip")
                if turn:  # the first round warms up
                    steps[name] += [1000 * (b - a) for a, b in itertools.pairwise(ticks)]
    milliseconds = {name: statistics.median(values) for name, values in steps.items()}
    found = {"device": str(device), "dtype": str(expert.compute_dtype), "rounds": args.rounds,
             "tokens": first.latents[0, 0].numel() // 4, "ms_a_step": milliseconds}
    for name, values in steps.items():
        print(f"{name:10} {statistics.median(values):8.1f} ms a step ({min(values):.1f} to {max(values):.1f})")
    for name in list(engines)[1:]:
        found[f"ratio_to_{name}"] = found["ms_a_step"]["ours"] / found["ms_a_step"][name]
        apart = (latents["ours"] - latents[name]).abs().max().item()
        print(f"ours / {name}: {found[f'ratio_to_{name}']:.3f}; latents differ by at most {apart:.1e}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
