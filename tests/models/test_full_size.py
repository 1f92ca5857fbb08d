"""Wan 2.2 I2V-A14B at full size on CUDA devices that are not there: the whole path, and the memory it takes.

The weights are files of 28.6 GB that hold nothing, opened by the pack's own loaders; the devices have places, shapes and
dtypes, but no numbers (tests/support/fake_cuda.py). So these tests prove that nothing mixes devices or dtypes, that no
code asks for a number where there is none to ask for, and how many bytes the tensors take at each operation.

They prove nothing about values, kernels and their workspaces, asynchronous copies, PyTorch's allocator and its
fragments, or drivers: for those a GPU is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.lora.apply import use_loras
from pipeline.models.condition import encode_first_frame
from pipeline.models.expert import Expert, load_expert
from pipeline.models.load import Wan22Model
from pipeline.models.memory import Fit, activation_bytes, fit, preflight
from pipeline.models.text_encoder import TextEncoder, encode_prompts
from pipeline.models.umt5 import load_text_encoder
from pipeline.models.vae import CACHE_BYTES_A_PIXEL, DECODE_BYTES_A_PIXEL, ENCODE_BYTES_A_PIXEL, WanVAE, load_vae
from pipeline.request import BOTH, HIGH_ONLY, LOW_ONLY, Lora, RequestError, Sampling
from pipeline.sampling.sampler import describe_memory, sample_latent
from tests.support import full_size
from tests.support.comfy_on_cuda import comfy_on
from tests.support.fake_cuda import DEVICE, FakeCuda
from tests.support.full_size_parts import FP8, SIZES, decode_peak, encode_peak, host_of, latents_of, pass_peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="makes sparse files as Linux does")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8_scaled": FP8}
GB = 10**9
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


@pytest.fixture
def gpu() -> Iterator[FakeCuda]:
    with FakeCuda() as gpu:
        yield gpu
    assert gpu.live == 0, "something keeps memory on the device"


def on(gpu: FakeCuda) -> torch.Tensor:
    return torch.ones(4, 4, device=DEVICE)


MIXED = {
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
    with pytest.raises(RuntimeError, match=r"two different devices|several dtypes|must have the same dtype|expected"):
        MIXED[operation](on(gpu))


def test_the_device_counts_its_bytes_and_has_no_more(gpu: FakeCuda) -> None:
    with gpu.peak() as peak:
        first = torch.ones(1000, 1000).to(DEVICE, torch.bfloat16)
        assert (first + 1 + first).cpu().sum() == 0 and gpu.live == 2_000_000
        first = first[:1]
        assert gpu.live == 2_000_000, "a view keeps the whole"
    assert peak.bytes == 6_000_000
    del first
    gpu.total = 10**6
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(10**6, dtype=torch.bfloat16, device=DEVICE)


CLIPS = {
    "fp16": ("fp16", (832, 480, 81), Sampling(seed=0, num_inference_steps=4, scheduler="euler", stage=BOTH)),
    "bf16": ("bf16", (1280, 720, 33), Sampling(seed=0, num_inference_steps=4, scheduler="unipc",
                                               batched_guidance=True)),
    "fp8_scaled": ("fp8_scaled", (832, 480, 49), Sampling(seed=0, num_inference_steps=4, scheduler="dpmpp_2m",
                                                          guidance_scale=1.0)),
}
"""Weights, width, height and frames of a clip, and how it is sampled."""


@pytest.mark.parametrize("clip", CLIPS)
def test_the_whole_path(gpu: FakeCuda, clip: str, expert_files: dict[str, Path], vae_file: Path, folder: Path) -> None:
    """Text, first frame, both experts with a LoRA, a stop at the boundary, and the frames."""
    name, (width, height, num_frames), sampling = CLIPS[clip]
    host = host_of(gpu)
    text_file = full_size.write_text_encoder(folder / f"text_{name}.safetensors", DTYPES[name])
    positive, negative = encode_prompts(TextEncoder(*load_text_encoder(text_file, host)), "a (red:1.2) cat runs", "")
    vae = WanVAE(*load_vae(vae_file, host))
    first = encode_first_frame(vae, torch.rand(1, 300, 500, 3), width, height, num_frames)
    assert gpu.live == 253_785_062, "the VAE alone is left"
    model = Wan22Model(*(load_expert(expert_files[name], host) for _ in range(2)))
    if host.read_lora is not None:
        lora = full_size.write_lora(folder / "lora.safetensors", 32)
        model, _ = use_loras(model, [Lora(str(lora), 1.0)], host, Path, None, None)
    stages = [sampling] if clip == "fp16" else [sampling.__class__(**{**vars(sampling), "stage": stage})
                                                for stage in (HIGH_ONLY, LOW_ONLY)]
    latent = None
    for stage in stages:
        latent = sample_latent(model, positive, negative, first, stage, latent=latent)
    samples = latent["samples"]
    assert tuple(samples.shape) == first.latent_shape and samples.device.type == "cpu"
    del model
    frames = [len(piece) for piece in vae.stream(samples[:, :, :3])]
    assert frames == [1, 4, 4]
    del vae


@pytest.fixture(scope="module")
def loaded(expert_files: dict[str, Path]) -> Iterator[tuple[FakeCuda, Expert]]:
    with FakeCuda() as gpu:
        yield gpu, load_expert(expert_files["bf16"], host_of(gpu))
