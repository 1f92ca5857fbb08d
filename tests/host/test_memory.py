"""Running out of memory: one more try with more room, then an error with the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.checkpoint.mmap import read_ahead
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.host import PlainResident, plain_host
from pipeline.models.load import Wan22Model
from pipeline.models.memory import preflight
from pipeline.models.patches import Patch
from pipeline.models.text_encoder import encode_prompts
from pipeline.models.vae import WanVAE
from pipeline.request import RequestError, Sampling
from pipeline.sampling.sampler import describe_memory, sample
from tests.support.comfy_in_process import comfy_host

SIDE, FRAMES = 64, 9


@pytest.fixture(scope="module")
def loaded() -> tuple:
    return bundled.load(plain_host())


@contextmanager
def running_out(module: torch.nn.Module, times: int,
                error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory.")) -> Iterator[list[int]]:  # noqa: B008
    """The module's next passes fail as a full device makes them fail; gives the count of passes."""
    passes: list[int] = []

    def fail(*_: object) -> None:
        passes.append(len(passes))
        if len(passes) <= times:
            raise error

    hook = module.register_forward_pre_hook(fail)
    try:
        yield passes
    finally:
        hook.remove()


def clip(loaded: tuple) -> torch.Tensor:
    model, encoder, vae = loaded
    image = torch.rand(1, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    first = encode_first_frame(vae, image, SIDE, SIDE, FRAMES)
    return sample(model, *encode_prompts(encoder, "nothing moves", ""), first, Sampling(0, num_inference_steps=4))


def test_one_failed_pass_does_not_change_the_clip(loaded: tuple) -> None:
    wanted = clip(loaded)
    with running_out(loaded[0].low.model, 1) as passes:
        assert torch.equal(clip(loaded), wanted)
    assert len(passes) == 1 + 2 * 2  # two low-noise steps of two passes


def cuda_error(code: int, text: str) -> torch.AcceleratorError:
    """As PyTorch raises it for an error that CUDA tells of later; the code is CUDA's."""
    error = torch.AcceleratorError(f"CUDA error: {text}")
    error.error_code = code
    return error


@pytest.fixture(scope="module")
def in_comfyui() -> tuple:
    return bundled.load(comfy_host())


@pytest.fixture(scope="module")
def clip_in_comfyui(in_comfyui: tuple) -> torch.Tensor:
    return clip(in_comfyui)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), cuda_error(2, "out of memory"),
                                   cuda_error(2, "operation failed"), torch.AcceleratorError("HIP out of memory"),
                                   RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
                                   RuntimeError("Invalid buffer size: 14.00 GB")],
                         ids=str)
def test_what_comfyui_takes_for_full_memory_is_tried_again(in_comfyui: tuple, clip_in_comfyui: torch.Tensor,
                                                           error: RuntimeError) -> None:
    with running_out(in_comfyui[0].low.model, 1, error) as passes:
        assert torch.equal(clip(in_comfyui), clip_in_comfyui)
    assert len(passes) == 1 + 2 * 2


def test_another_error_is_passed_on(in_comfyui: tuple) -> None:
    error = cuda_error(710, "device-side assert triggered")
    high = in_comfyui[0].high.model
    with running_out(high, 1, error) as passes, pytest.raises(torch.AcceleratorError, match="assert"):
        clip(in_comfyui)
    assert len(passes) == 1


def test_a_failed_pass_gets_twice_the_room_and_so_do_the_next(loaded: tuple) -> None:
    """Look at what the host is asked for from behind a resident that does what it is told."""
    model, encoder, vae = loaded
    asked: list[int] = []

    class Recorder(PlainResident):
        def load_to_device(self, activation_bytes: int, patches: Sequence[Patch] = ()) -> torch.device:
            asked.append(activation_bytes)
            return super().load_to_device(activation_bytes, patches)

    low = replace(model.low, resident=Recorder(model.low.model, torch.device("cpu")))
    with running_out(low.model, 1):
        clip((Wan22Model(model.high, low), encoder, vae))
    assert asked == [asked[0], *4 * [2 * asked[0]]]  # failed, tried again, and the three other low-noise passes


def test_two_failed_passes_end_the_run_with_the_figures(loaded: tuple) -> None:
    said = r"too little memory .* the high-noise expert, which needs about 467 kB.*Lower the size"
    with running_out(loaded[0].high.model, 2), pytest.raises(RequestError, match=said):
        clip(loaded)


def test_encoding_starts_again_in_tiles(loaded: tuple) -> None:
    """Of a picture of one tile, so that the latents are the same."""
    vae: WanVAE = loaded[2]
    image = torch.rand(9, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    wanted = vae.encode(image)
    with running_out(vae.resident.module.encoder, 1):
        assert torch.allclose(vae.encode(image), wanted, atol=1e-5)
    said = "too little memory on the device to encode even 256x256"
    with running_out(vae.resident.module.encoder, 2), pytest.raises(RequestError, match=said):
        vae.encode(image)


def test_decoding_goes_on_in_tiles(loaded: tuple) -> None:
    """The second piece fails; what comes in tiles is the same clip."""
    vae: WanVAE = loaded[2]
    latents = clip(loaded)
    wanted = vae.decode(latents)
    calls = 0

    def fail_once(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = vae.resident.module.decoder.register_forward_pre_hook(fail_once)
    try:
        found = vae.decode(latents)
    finally:
        hook.remove()
    assert calls > 2
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3)


def test_tiles_join_without_seams(loaded: tuple) -> None:
    vae: WanVAE = loaded[2]
    t, y, x = torch.meshgrid(torch.arange(5) / 5, torch.arange(192) / 192, torch.arange(192) / 192, indexing="ij")
    latents = vae.encode(torch.stack([(x + t / 4).sin(), y, (x * y + t / 4).cos()], -1).clamp(0, 1))
    whole, tiled = vae.decode(latents), vae.decode_tiled(latents, tile_x=16, tile_y=16, overlap=8)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() < 0.02


def test_preflight() -> None:
    assert preflight(14_300_000_000, 3_760_000_000, 22_000_000_000, 24_000_000_000) == (
        "needs 14.3 GB + 3.76 GB, 22 GB free")
    assert preflight(28 * 10**9, 4 * 10**9, 20 * 10**9, 24 * 10**9).startswith("the weights stream from RAM\n")
    assert "lower the size" in preflight(10**9, 30 * 10**9, 20 * 10**9, 24 * 10**9)


def test_full_size_needs_what_was_measured(loaded: tuple) -> None:
    """480p x 81: 3.76 GB a pass of a 5120-wide expert in 2 bytes; the bundled expert is 20 times narrower, in 4."""
    from pipeline.models.condition import known_ends

    model: Wan22Model = loaded[0]
    first = known_ends(torch.zeros(1, 16, 21, 60, 104))
    said = describe_memory(model, first, Sampling(0), 10**9, 10**9)
    assert said.startswith("needs 10.6 MB + 319 MB,")
    assert "+ 637 MB," in describe_memory(model, first, Sampling(0, batched_guidance=True), 10**9, 10**9)


def test_read_ahead_reads(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(1 << 20))
    thread = read_ahead([file])
    thread.join(30)
    assert not thread.is_alive()
    assert read_ahead([tmp_path / "gone"]) is None
