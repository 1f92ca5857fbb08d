"""The measurements: each runs one engine once and gives what the report shows of it."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import torch
from torch.autograd import DeviceType

from bench import mp4
from bench.gpu.clock import Clock, EnoughError
from bench.gpu.device import PeakMemory, is_gpu, synchronize
from bench.gpu.equality import compute_dtype, equality
from bench.gpu.plan import OURS, Found, Row, Size
from bench.gpu.weights import LORA_RANK, Weights, make_weights
from bench.ksampler import ksampler_stages
from pipeline.host.ops import comfy_host
from pipeline.lora.apply import use_loras
from pipeline.models.condition import Condition, known_ends
from pipeline.models.expert import load_expert
from pipeline.models.load import Wan22Model
from pipeline.models.vae import WanVAE, load_vae
from pipeline.request import HIGH, HIGH_ONLY, LOW, Lora, Sampling
from pipeline.sampling.hooks import observe
from pipeline.sampling.sampler import sample

REPETITIONS = 2
"""Timed behind the first."""
LONG = 60.0
"""Seconds after which one repetition is enough."""
STEPS = 20
"""Of the schedule whose first steps are timed, all by the high-noise expert."""
TEXT_TOKENS, TEXT_DIM = 512, 4096
OPERATIONS = 14
"""Of a profile, the longest ones."""
NAME_CHARACTERS = 90

Tick = Callable[[], None]


@dataclass(frozen=True)
class Clip:
    """A clip of random numbers."""

    condition: Condition
    positive: list[list[Any]]
    negative: list[list[Any]]

    @property
    def tokens(self) -> int:
        """Return the tokens of a pass: 2x2 latents each."""
        return self.condition.latents[0, 0].numel() // 4


class Bench:
    """The files of one process, opened by both engines when a row first asks for them."""

    def __init__(self, scratch: Path, size: Size) -> None:
        self.scratch, self.size = scratch, size

    @cached_property
    def files(self) -> Weights:
        """The files, written if need be."""
        weights, told = make_weights(self.scratch, self.size)
        logging.warning("Random weights: %s", told)
        return weights

    @cached_property
    def model(self) -> Wan22Model:
        """Both experts, opened by us."""
        host = comfy_host()
        model = Wan22Model(load_expert(self.files.high, host), load_expert(self.files.low, host))
        logging.warning("The experts compute in %s", model.high.compute_dtype)
        return model

    @cached_property
    def models(self) -> dict[str, Any]:
        """Both experts as ComfyUI's MODELs, by HIGH and LOW."""
        models = {HIGH: comfy.sd.load_diffusion_model(str(self.files.high)),
                  LOW: comfy.sd.load_diffusion_model(str(self.files.low))}
        logging.warning("The experts compute in %s", compute_dtype(models[HIGH]))
        return models

    @cached_property
    def vae(self) -> WanVAE:
        """The VAE, opened by us."""
        return WanVAE(*load_vae(self.files.vae, comfy_host()))

    @cached_property
    def comfyui_vae(self) -> Any:
        """The VAE, opened by ComfyUI."""
        return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(self.files.vae)))

    def clip(self, name: str) -> Clip:
        """Return a clip of a size."""
        width, height, frames = self.size.clips[name]
        g = torch.Generator().manual_seed(1)
        latents = torch.randn(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8, generator=g)
        texts = ([[torch.randn(1, TEXT_TOKENS, TEXT_DIM, generator=g), {}]] for _ in range(2))
        return Clip(known_ends(latents), *texts)


def sampled(bench: Bench, engine: str, clip: Clip, sampling: Sampling, lora: bool) -> Callable[[Tick], None]:
    """Open what is needed; return run(tick), which samples a clip by one engine and ticks after each step."""
    if engine == OURS:
        loras = [Lora(str(bench.files.lora), 1.0, HIGH)] if lora else []
        model, _ = use_loras(bench.model, loras, Path, None, lambda: None)
        return lambda tick: sample(model, clip.positive, clip.negative, clip.condition, sampling,
                                   observe(after_step=lambda step, clean: tick()))
    models = dict(bench.models)
    if lora:
        tensors = comfy.utils.load_torch_file(str(bench.files.lora), safe_load=True)
        models[HIGH] = comfy.sd.load_lora_for_models(models[HIGH], None, tensors, 1.0, 0)[0]
    return lambda tick: ksampler_stages(models, clip.positive, clip.negative, clip.condition, sampling, tick)


def timed(run: Callable[[Tick], Any], repetitions: int) -> tuple[Clock, dict[str, float]]:
    """Run until the clock has seen enough; return it, and the peaks of memory in GiB."""
    with PeakMemory() as peak:
        clock = Clock(repetitions, LONG, synchronize)
        with suppress(EnoughError):
            run(clock.tick)
    return clock, peak.values


def passes(bench: Bench, row: Row, engine: str) -> Found:
    """Time steps of the high-noise expert: one pass each at guidance 1."""
    clip = bench.clip(row.clip)
    sampling = Sampling(0, STEPS, row.guidance_scale, stage=HIGH_ONLY)
    clock, peak = timed(sampled(bench, engine, clip, sampling, row.lora), REPETITIONS)
    values = clock.values()
    count = 1 if row.guidance_scale == 1.0 else 2
    config = bench.model.high.model.config
    values["tflops"] = count * operations(config, clip.tokens, row.lora) / values["seconds"] / 1e12
    return Found({**values, **peak})


def operations(config: Any, tokens: int, lora: bool) -> float:
    """Return the floating-point operations of a pass: those of the blocks' matrix products and attention."""
    dim, wide = config.num_attention_heads * config.attention_head_dim, config.ffn_dim
    weights = 6 * dim * dim + 2 * dim * wide  # of matrices that every token meets: q, k, v, o; q, o of the text; ffn
    if lora:
        weights += LORA_RANK * (6 * 2 * dim + 2 * (dim + wide))
    of_text = 2 * TEXT_TOKENS * 2 * dim * dim
    attention = 4 * tokens * (tokens + TEXT_TOKENS) * dim
    return config.num_layers * (2 * tokens * weights + of_text + attention)


def switch(bench: Bench, row: Row, engine: str) -> Found:
    """Time what the first step of the low-noise expert takes more than the steps around it, in a clip of four."""
    clock, peak = timed(sampled(bench, engine, bench.clip(row.clip), Sampling(0, 4, 1.0), False), 3)
    first, before, changed, after = clock.spans
    return Found({"first": first, "seconds": changed - (before + after) / 2, **peak})


def decode(bench: Bench, row: Row, engine: str) -> Found:
    """Time the decoding of a whole clip to frames on the CPU."""
    latents = bench.clip(row.clip).condition.latents
    vae = bench.vae if engine == OURS else bench.comfyui_vae
    return _repeated(lambda: vae.decode(latents))


def encode(bench: Bench, row: Row, engine: str) -> Found:
    """Time the encoding of a whole clip of frames."""
    width, height, frames = bench.size.clips[row.clip]
    pixels = torch.rand(frames, height, width, 3)
    vae = bench.vae if engine == OURS else bench.comfyui_vae
    return _repeated(lambda: vae.encode(pixels))


def _repeated(work: Callable[[], Any]) -> Found:
    def run(tick: Tick) -> None:
        while True:
            work()
            tick()

    clock, peak = timed(run, 1)
    return Found({**clock.values(), **peak})


def mp4_file(bench: Bench, row: Row, engine: str) -> Found:
    """Time the writing of an MP4: ours, and what ComfyUI's Save Video does."""
    width, height, frames = bench.size.clips[row.clip]
    images = mp4.frames_of(frames, width, height)
    with tempfile.TemporaryDirectory() as folder:
        write = (mp4.ours if engine == OURS else mp4.core)(images, Path(folder, "clip.mp4"), 17.0)
        start = time.perf_counter()
        write()
        return Found({"seconds": time.perf_counter() - start})


def profile(bench: Bench, row: Row, engine: str) -> Found:
    """List the operations on the device that take longest in the second pass."""
    run = sampled(bench, engine, bench.clip(row.clip), Sampling(0, STEPS, 1.0, stage=HIGH_ONLY), False)
    profiler = torch.profiler.profile()
    ticks: list[None] = []

    def tick() -> None:
        synchronize()
        ticks.append(None)
        if len(ticks) == 1:
            profiler.start()
        else:
            profiler.stop()
            raise EnoughError

    with suppress(EnoughError):
        run(tick)
    # On a GPU the kernels themselves: the calls that start them would count their time again.
    spent = {event.key: (event.self_device_time_total if is_gpu() else event.self_cpu_time_total, event.count)
             for event in profiler.key_averages() if (event.device_type != DeviceType.CPU) == is_gpu()}
    total = sum(microseconds for microseconds, _ in spent.values()) or 1.0
    longest = sorted(spent.items(), key=lambda item: -item[1][0])[:OPERATIONS]
    return Found(facts={name[:NAME_CHARACTERS]: f"{time / 1000:.1f} ms, {100 * time / total:.1f} %, {count} times"
                        for name, (time, count) in longest})


MEASURES: dict[str, Callable[[Bench, Row, str], Found]] = {
    "equality": equality, "passes": passes, "switch": switch, "decode": decode, "encode": encode, "mp4": mp4_file,
    "profile": profile}
