"""Wan 2.2 I2V-A14B at full size on CUDA devices that are not there: the whole path, and the memory it takes.

The weights are files of 28.6 GB that hold nothing, opened by the pack's own loaders; the devices have places, shapes
and dtypes, but no numbers (tests/support/fake_cuda.py). So these tests prove that nothing mixes devices or dtypes, and
how many bytes the tensors take at each operation.

They prove nothing about values, kernels and their workspaces, asynchronous copies, PyTorch's allocator and its
fragments, or drivers: for those a GPU is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.lora.apply import use_loras
from pipeline.models.condition import encode_first_frame, known_ends
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import plain_host
from pipeline.models.load import Wan22Model
from pipeline.models.memory import RESERVED, Fit, fit
from pipeline.models.text_encoder import TextEncoder, encode_prompts
from pipeline.models.tiles import DecodeMemory, choose_grid
from pipeline.models.umt5 import load_text_encoder
from pipeline.models.vae import (
    CACHE_BYTES_A_PIXEL,
    DECODE_BYTES_A_PIXEL,
    ENCODE_BYTES_A_PIXEL,
    SHARES,
    TILE,
    WanVAE,
    load_vae,
)
from pipeline.request import HIGH_ONLY, LOW_ONLY, Lora, RequestError, Sampling
from pipeline.sampling.sampler import describe_memory, pass_bytes, sample_latent
from tests.support import full_size
from tests.support.comfy_on_cuda import comfy_on
from tests.support.fake_cuda import DEVICE, FakeCuda
from tests.support.full_size_parts import SIZES, TEXT, decode_peak, encode_peak, latents_of, pass_peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes sparse files as Linux does")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8_scaled": torch.float8_e4m3fn}
GB = 10**9
VAE_BYTES = 253_785_062
CLOSE = 0.15
"""The share by which an estimate may be off."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("full_size")


@pytest.fixture(scope="module")
def expert_files(folder: Path) -> dict[str, Path]:
    return {name: full_size.write_expert(folder / f"{name}.safetensors", dtype) for name, dtype in DTYPES.items()}


@pytest.fixture(scope="module")
def vae_file(folder: Path) -> Path:
    return full_size.write_vae(folder / "vae.safetensors", torch.bfloat16)


@pytest.fixture(scope="module")
def lora_file(folder: Path) -> Path:
    return full_size.write_lora(folder / "lora.safetensors", 32)


@pytest.fixture
def gpu() -> Iterator[FakeCuda]:
    with FakeCuda() as gpu:
        yield gpu


MIXED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda there: there + torch.ones(4, 4),
    "product": lambda there: there @ torch.ones(4, 4),
    "in place": lambda there: torch.ones(4, 4).add_(there),
    "cat": lambda there: torch.cat([there, torch.ones(4, 4)]),
    "rows of an embedding": lambda there: torch.nn.functional.embedding(there.long(), torch.ones(4, 4)),
    "dtypes of a product": lambda there: there @ there.half(),
    "dtypes of a layer": lambda there: torch.nn.functional.linear(there, there.bfloat16()),
    "dtypes of a norm": lambda there: torch.nn.functional.layer_norm(there, (4,), there[0].half()),
    "dtypes of a convolution": lambda there: torch.nn.functional.conv1d(there[None], there[None].half()),
}


@pytest.mark.parametrize("operation", MIXED)
def test_the_device_refuses_what_a_gpu_refuses(gpu: FakeCuda, operation: str) -> None:
    with pytest.raises(RuntimeError, match=r"two different devices|several dtypes"):
        MIXED[operation](torch.ones(4, 4, device=DEVICE))


def test_the_device_counts_its_bytes_and_has_no_more(gpu: FakeCuda) -> None:
    with gpu.peak() as peak:
        first = torch.ones(1000, 1000).to(DEVICE, torch.bfloat16)
        back = (first + 1 + first).cpu()
        assert back.sum() == 0
        assert gpu.live == 2_000_000
        first = first[:1]
        assert gpu.live == 2_000_000, "a view keeps the whole"
    assert peak.bytes == 6_000_000
    del first
    gpu.total = 10**6
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(10**6, dtype=torch.bfloat16, device=DEVICE)
    assert gpu.live == 0


CLIPS = {
    "fp16": (832, 480, 81, Sampling(seed=0, num_inference_steps=4, scheduler="euler", guidance_scale=1.0)),
    "bf16": (1280, 720, 33, Sampling(seed=0, num_inference_steps=4, scheduler="unipc", batched_guidance=True)),
    "fp8_scaled": (832, 480, 49, Sampling(seed=0, num_inference_steps=4, scheduler="dpmpp_2m", guidance_scale=1.0)),
}
"""Dtype of all weights -> width, height and frames of a clip, and how it is sampled."""


@pytest.mark.parametrize("name", CLIPS)
def test_the_whole_path(gpu: FakeCuda, name: str, expert_files: dict[str, Path], vae_file: Path, lora_file: Path,
                        folder: Path) -> None:
    """Text, first frame, both experts with a LoRA and a stop between them, and the frames."""
    width, height, num_frames, sampling = CLIPS[name]
    host = plain_host(str(DEVICE))
    text_file = full_size.write_text_encoder(folder / "text.safetensors", DTYPES[name])
    encoder = TextEncoder(*load_text_encoder(text_file, host))
    positive, negative = encode_prompts(encoder, "a (red:1.2) cat runs", "")
    vae = WanVAE(*load_vae(vae_file, host))
    first = encode_first_frame(vae, torch.rand(1, 300, 500, 3), width, height, num_frames)
    model = Wan22Model(*(load_expert(expert_files[name], host) for _ in range(2)))
    model, report = use_loras(model, [Lora(str(lora_file), 1.0)], Path, None, None)
    assert len(report) == 2 and "1200 of 1200 keys" in report[0]
    latent = None
    for stage in (HIGH_ONLY, LOW_ONLY):
        latent = sample_latent(model, positive, negative, first, replace(sampling, stage=stage), latent=latent)
    samples = latent["samples"]
    assert (tuple(samples.shape), samples.device.type) == (first.latent_shape, "cpu")
    assert [len(piece) for piece in vae.stream(samples[:, :, :3])] == [1, 4, 4]
    del model, encoder
    assert gpu.live == VAE_BYTES, "nothing but the VAE is left"


@pytest.fixture(scope="module")
def loaded(expert_files: dict[str, Path], lora_file: Path) -> Iterator[tuple[FakeCuda, Wan22Model]]:
    """An expert in bf16, without and with a LoRA."""
    with FakeCuda() as gpu:
        expert = load_expert(expert_files["bf16"], plain_host(str(DEVICE)))
        model, _ = use_loras(Wan22Model(expert, expert), [Lora(str(lora_file), 1.0)], Path, None, None)
        yield gpu, Wan22Model(expert, model.high)


@pytest.mark.parametrize("num_frames", [33, 49, 81])
@pytest.mark.parametrize("size", SIZES)
def test_a_pass_takes_what_is_estimated(loaded: tuple, size: str, num_frames: int) -> None:
    gpu, model = loaded
    latents = latents_of(*SIZES[size], num_frames)
    estimate = pass_bytes(model.high, tuple(latents.shape))
    assert pass_peak(gpu, model.high, latents).bytes == pytest.approx(estimate, rel=CLOSE)
    if num_frames == 81:
        with_lora = pass_peak(gpu, model.low, latents)
        assert with_lora.bytes == pytest.approx(estimate, rel=CLOSE)
    if num_frames == 33:
        both = pass_peak(gpu, model.high, latents, batched=True)
        assert both.bytes == pytest.approx(2 * estimate, rel=CLOSE)


@pytest.mark.parametrize(("size", "dtype"), [("480p", torch.bfloat16), ("720p", torch.bfloat16),
                                            ("480p", torch.float32)])
def test_the_vae_takes_what_is_estimated(gpu: FakeCuda, size: str, dtype: torch.dtype, folder: Path) -> None:
    """Encoding, decoding whole, and decoding in tiles whose caches stay on the device or do not."""
    path = full_size.write_vae(folder / f"vae_{size}.safetensors", dtype)
    vae = WanVAE(*load_vae(path, plain_host(str(DEVICE))))
    width, height = SIZES[size]
    a_byte = width * height * dtype.itemsize // 2
    assert encode_peak(gpu, vae, width, height).bytes == pytest.approx(ENCODE_BYTES_A_PIXEL * a_byte, rel=CLOSE)
    peak, caches, tiles = decode_peak(gpu, vae, width, height, free=10**12)
    assert tiles == 1
    assert peak.bytes == pytest.approx(DECODE_BYTES_A_PIXEL * a_byte, rel=CLOSE)
    assert caches == pytest.approx(CACHE_BYTES_A_PIXEL * a_byte, rel=CLOSE)
    for free in (0.75 * peak.bytes, 0.3 * peak.bytes):
        found, _, tiles = decode_peak(gpu, vae, width, height, int(free))
        assert tiles > 1
        assert 0.6 * free < found.bytes < 1.02 * free


def test_a_frame_that_does_not_fit_is_encoded_in_tiles(gpu: FakeCuda, vae_file: Path) -> None:
    vae = WanVAE(*load_vae(vae_file, plain_host(str(DEVICE))))
    gpu.total = 4 * GB
    with gpu.peak() as peak:
        assert vae.encode(torch.zeros(5, 720, 1280, 3)).shape == (1, 16, 2, 90, 160)
    largest = ENCODE_BYTES_A_PIXEL * TILE**2
    assert 0.7 * largest < peak.bytes <= largest, "tiles of one size that cover the frame are a little smaller"


DEVICES = {  # GiB: fp8_scaled at 480p x 81 and 720p x 81, fp16 at both, tiles of decoding at both
    8: ("streams", "too little", "streams", "too little", 1, 3),
    12: ("streams", "streams", "streams", "streams", 1, 1),
    16: ("streams", "streams", "streams", "streams", 1, 1),
    24: ("fits", "fits", "streams", "streams", 1, 1),
    32: ("fits", "fits", "fits", "streams", 1, 1),
    80: ("fits", "fits", "fits", "fits", 1, 1),
}


@pytest.mark.parametrize("gigabytes", DEVICES)
def test_what_fits_a_device_what_streams_and_what_tiles(gigabytes: int) -> None:
    found = [fit(weights, activations * GB // 100, gigabytes * 2**30).value
             for weights in (14_527_052_360, 28_577_925_136) for activations in (376, 867)]
    need = DecodeMemory(DECODE_BYTES_A_PIXEL * 64, CACHE_BYTES_A_PIXEL * 64)
    free = int(SHARES[0] * (gigabytes * 2**30 - RESERVED - VAE_BYTES))
    grids = [choose_grid(height // 8, width // 8, free, need) for width, height in SIZES.values()]
    assert (*found, *(len(list(grid.tiles())) for grid in grids)) == DEVICES[gigabytes]


@pytest.mark.parametrize(("gigabytes", "size"), [(12, "720p"), (24, "480p")])
def test_comfyui_keeps_to_the_device(gigabytes: int, size: str, expert_files: dict[str, Path], lora_file: Path) -> None:
    """ComfyUI's manager without dynamic VRAM loads as much of an expert as leaves room for the pass."""
    gpu = FakeCuda(gigabytes * 2**30)
    with comfy_on(gpu) as host:
        model = Wan22Model(*(load_expert(expert_files["fp8_scaled"], host) for _ in range(2)))
        model, _ = use_loras(model, [Lora(str(lora_file), 1.0)], Path, None, None)
        text = [[torch.zeros(TEXT), {}]]
        first = known_ends(latents_of(*SIZES[size], 81))
        sampling = Sampling(seed=0, num_inference_steps=4, guidance_scale=1.0)
        with gpu.peak() as peak:
            sample_latent(model, text, text, first, sampling)
        assert peak.bytes > 0.6 * gpu.total, "what it leaves free is not much more than it has to"
        said = describe_memory(model, first, sampling, gpu.total - gpu.live, gpu.total)
        wanted = fit(model.high.size, pass_bytes(model.high, first.latent_shape), gpu.total)
        assert said.startswith("the weights stream") == (wanted is Fit.STREAMS)
        assert (gpu.live > model.high.size) == (wanted is Fit.FITS)


def test_a_pass_that_cannot_fit_ends_with_advice(expert_files: dict[str, Path]) -> None:
    gpu = FakeCuda(8 * GB)
    with comfy_on(gpu) as host:
        expert = load_expert(expert_files["fp8_scaled"], host)
        text = [[torch.zeros(TEXT), {}]]
        first = known_ends(latents_of(*SIZES["720p"], 81))
        sampling = Sampling(seed=0, num_inference_steps=4)
        model = Wan22Model(expert, expert)
        assert describe_memory(model, first, sampling, 8 * GB, 8 * GB).startswith("too little memory: lower the size")
        with pytest.raises(RequestError, match=r"too little memory on the device for a pass .* about 8\.67 GB"):
            sample_latent(model, text, text, first, sampling)


def test_opening_the_files_takes_no_memory(expert_files: dict[str, Path]) -> None:
    before = psutil.Process().memory_full_info().uss
    experts = [load_expert(file, plain_host()) for file in expert_files.values()]
    assert all(isinstance(expert, Expert) for expert in experts)
    assert psutil.Process().memory_full_info().uss - before < 300 * 2**20
