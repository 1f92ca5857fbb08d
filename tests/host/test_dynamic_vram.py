"""ComfyUI's dynamic VRAM, its default on NVIDIA: the same bits as on the CPU, whatever pages are taken away, and the
next block's weights fetched while one computes. tests/support/dynamic_vram.py says what this does not prove.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.lora.apply import apply_loras, original_name
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.expert import Expert, load_expert
from pipeline.models.load import Wan22Model
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import Sampling
from pipeline.sampling.hooks import NO_HOOKS, Hooks
from pipeline.sampling.sampler import sample
from tests.support import layouts, lora_files
from tests.support.aimdo_in_memory import PAGE, Library
from tests.support.comfy_in_process import comfy_host, import_comfyui
from tests.support.dynamic_vram import MEMORY, dynamic_vram
from tests.support.lora_files import lora_file

STEPS = 4
INT8 = {"format": "int8_tensorwise"}
FILES: dict[str, Callable[[layouts.Weights, Path], None]] = {
    "fp16": layouts.plain(torch.float16), "fp32": layouts.plain(torch.float32),
    "fp8_scaled": layouts.fp8_comfy(torch.float8_e4m3fn), "fp8 by rows": layouts.fp8_by_rows,
    "int8": layouts.by_comfy("TensorWiseINT8Layout", INT8, per_channel=True), "Q8_0.gguf": layouts.gguf_file("Q8_0"),
    "Q4_0.gguf": layouts.gguf_file("Q4_0"),
}
PRESSURE: dict[str, tuple[dict[str, Any], int]] = {
    "all fits": ({}, 64 << 20), "some fits": ({"room": 6}, 64 << 20), "nothing fits": ({"room": 0}, 64 << 20),
    "pages are lost": ({"loss": 0.03, "seed": 1}, 64 << 20),
    "little of all": ({"room": 8, "loss": 0.03, "seed": 2}, 1 << 20),
}
"""Options of Library, and bytes of RAM that may be pinned."""


def clip(loaded: tuple, hooks: Hooks = NO_HOOKS) -> tuple[torch.Tensor, torch.Tensor]:
    """The latents and the frames of a clip of 32x32 pixels and 5 frames; both experts take two of its steps."""
    model, encoder, vae = loaded
    image = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    first = encode_first_frame(vae, image, 32, 32, 5)
    texts = encode_prompts(encoder, "everything turns blue", "still")
    latents = sample(model, *texts, first, Sampling(0, STEPS), hooks)
    return latents, vae.decode(latents)


@torch.no_grad()
def velocity(expert: Expert) -> torch.Tensor:
    """The expert's answer to fixed noise and text, (1, 16, 2, 4, 4), its patches in force."""
    g = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 36, 2, 4, 4, generator=g), torch.randn(1, 512, expert.text_dim, generator=g)
    device = expert.resident.load_to_device(0, expert.patches)
    return expert.model(noisy.to(device), torch.tensor([500.0]).to(device), text.to(device), return_dict=False)[0].cpu()


def layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer for layer in module.modules() if hasattr(layer, "comfy_cast_weights")]


@pytest.fixture(scope="module", autouse=True)
def comfyui() -> None:
    import_comfyui()


@pytest.fixture(scope="module")
def wanted() -> tuple[torch.Tensor, torch.Tensor]:
    return clip(bundled.load(comfy_host()))


@pytest.mark.parametrize("pressure", PRESSURE)
def test_two_clips_in_turn(pressure: str, wanted: tuple[torch.Tensor, torch.Tensor],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on pages count as free memory: they give way to the VAE by themselves. Reserved memory is not free."""
    import comfy.model_management as management

    from pipeline.host.memory import device_memory

    monkeypatch.setattr(management, "EXTRA_RESERVED_VRAM", 3 << 30)
    options, pinned = PRESSURE[pressure]
    with dynamic_vram(Library(**options), pinned) as library:
        loaded = bundled.load(comfy_host())
        for _ in range(2):
            assert all(map(torch.equal, clip(loaded), wanted))
            assert 0 < sum(library.registered.values()) <= pinned
            assert loaded[2].resident.available_bytes() == MEMORY - (3 << 30)
            assert device_memory() == (MEMORY, MEMORY)
        assert (library.refused > 0) == (library.room < 100)
        assert (library.lost > 0) == (library.loss > 0)
        assert not library.pins
        assert 0 < library.prepared <= 2 * len(("text encoder", "VAE", "high", "low", "VAE"))
    assert not library.registered, "pinned memory is given back"


def unloaded(loaded: tuple) -> None:
    import comfy.model_management as management

    management.free_memory(1e30, management.get_torch_device())


def emptied(loaded: tuple) -> None:
    """As when other packs ask for more memory than the weights on pages have."""
    for expert in loaded[0].experts.values():
        expert.resident.patcher.partially_unload(None, 1e30)


def pushed_back(loaded: tuple) -> None:
    encode_prompts(loaded[1], "another model runs", "")


def after_a_node(loaded: tuple) -> None:
    """As ComfyUI does."""
    import comfy.model_management as management
    import comfy.model_prefetch

    management.reset_cast_buffers()
    comfy.model_prefetch.cleanup_prefetch_queues()


@pytest.mark.parametrize("happens", [unloaded, emptied, pushed_back, after_a_node])
def test_an_expert_is_made_ready_again(happens: Callable[[tuple], None], wanted: tuple[torch.Tensor, torch.Tensor],
                                       ) -> None:
    with dynamic_vram(Library()) as library:
        loaded = bundled.load(comfy_host())

        def after_step(step: int, sigma: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
            happens(loaded)
            prepared.append(library.prepared)
            return latents

        prepared: list[int] = []
        assert all(map(torch.equal, clip(loaded, Hooks(after_step=after_step)), wanted))
        each = 2 if happens is pushed_back else 1
        assert [later - before for before, later in pairwise(prepared)] == [each] * (STEPS - 1)


@pytest.mark.parametrize("name", FILES)
def test_every_layout(name: str, tmp_path: Path) -> None:
    file = tmp_path / (name if "gguf" in name else "expert.safetensors")
    FILES[name](load_file(bundled.DEMO_HIGH), file)
    wanted = velocity(load_expert(file, comfy_host()))
    with dynamic_vram(Library(room=10, loss=0.05)) as library:
        expert = load_expert(file, comfy_host())
        assert all(torch.equal(velocity(expert), wanted) for _ in range(3))
        assert library.lost


@pytest.mark.parametrize("name", ["fp32", "fp8_scaled", "Q8_0.gguf"])
def test_loras(name: str, tmp_path: Path) -> None:
    """On layers of every kind, at changing strength, and gone again without a trace."""
    host = comfy_host()
    weights = load_file(bundled.DEMO_HIGH)
    FILES[name](weights, tmp_path / f"expert.{'gguf' if 'gguf' in name else 'safetensors'}")
    file = next(tmp_path.iterdir())
    parameters = dict(load_expert(bundled.DEMO_HIGH, host).model.named_parameters())
    g = torch.Generator().manual_seed(1)
    tensors = lora_files.FORMATS["lightx2v"](lora_files.changes_of(parameters, "attn1"))
    tensors |= lora_files.FORMATS["LoKr"](lora_files.changes_of(parameters, "ffn"))
    for parameter in ("blocks.1.norm2.weight", "blocks.2.attn2.norm_q.weight", "blocks.0.attn2.to_q.bias"):
        module, _, part = original_name(parameter).rpartition(".")
        tensors[f"diffusion_model.{module}.{'diff' if part == 'weight' else 'diff_b'}"] = 0.05 * torch.randn(
            parameters[parameter].shape, generator=g)
    tensors["diffusion_model.blocks.3.modulation.diff"] = 0.05 * torch.randn(1, 6, 256, generator=g)
    loras = tmp_path / "loras"
    loras.mkdir()
    strengths = [lora_file(tensors, loras, scale) for scale in (1.0, -0.5)]

    def answers() -> list[torch.Tensor]:
        host = comfy_host()
        expert = load_expert(file, host)
        changed = [apply_loras(Wan22Model(expert, expert), [lora])[0].high for lora in strengths]
        return [velocity(each) for each in (expert, changed[0], changed[0], changed[1], expert, changed[0])]

    wanted = answers()
    assert not torch.equal(wanted[0], wanted[1]) and torch.equal(wanted[0], wanted[4])
    with dynamic_vram(Library(room=10, loss=0.05)) as library:
        assert all(map(torch.equal, answers(), wanted))
        assert library.lost and not library.pins


def test_layers_too_small_for_pages() -> None:
    """ComfyUI puts layers of 16 KiB and less on the GPU when it loads a model."""
    from pipeline.checkpoint.quantised import GGUF, SCALES_OF_ITS_OWN, QuantisedWeight

    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 32, generator=g),
               QuantisedWeight(GGUF, torch.randint(0, 9, (16, 34), dtype=torch.uint8, generator=g), (16, 32),
                               {}, {"type": "Q8_0"}),
               QuantisedWeight(SCALES_OF_ITS_OWN, torch.randn(16, 32, generator=g).to(torch.float8_e4m3fn), (16, 32),
                               {"weight_scale": torch.rand(16, generator=g)})]
    x = torch.randn(2, 32, generator=g)

    def answers() -> list[torch.Tensor]:
        host = comfy_host()
        module = torch.nn.ModuleList()
        for weight in weights:
            layer = host.linear(torch.float32)(32, 16, bias=True)
            layer.assign_weight(weight, torch.zeros(16))
            module.append(layer)
        device = host.adopt(module).load_to_device(0)
        return [layer(x.to(device)).cpu() for layer in module]

    wanted = answers()
    with dynamic_vram(Library()) as library:
        assert all(map(torch.equal, answers(), wanted))
        assert not library.events


def runs_out_computing(layer: torch.nn.Module, library: Library, patch: pytest.MonkeyPatch) -> None:
    fail_once(patch, layer, "_forward", torch.OutOfMemoryError("CUDA out of memory."))


def runs_out_on_a_weight(layer: torch.nn.Module, library: Library, patch: pytest.MonkeyPatch) -> None:
    import comfy.ops

    error = torch.OutOfMemoryError("CUDA out of memory.")
    fail_once(patch, comfy.ops, "resolve_cast_module_with_vbar", error, lambda module, *_, **__: module is layer)


def runs_out_fetching(layer: torch.nn.Module, library: Library, patch: pytest.MonkeyPatch) -> None:
    """As comfy_aimdo says that there is no memory for a page."""
    vbar, address, _ = layer._v
    fail_once(patch, library, "vbar_fault", RuntimeError("Fault failed: 2"),
              lambda context, handle, offset, *_: offset == address - vbar.base_addr)


def fail_once(patch: pytest.MonkeyPatch, of: Any, name: str, error: Exception,
              at: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Let the first call of a function that `at` is true of fail."""
    function, errors = getattr(of, name), [error]

    def maybe(*args: Any, **kwargs: Any) -> Any:
        if errors and at(*args, **kwargs):
            raise errors.pop()
        return function(*args, **kwargs)

    patch.setattr(of, name, maybe)


@pytest.mark.parametrize("name, room", [("blocks.1.ffn.net.2", 0), ("proj_out", 0), ("proj_out", 100)])
@pytest.mark.parametrize("runs_out", [runs_out_computing, runs_out_on_a_weight, runs_out_fetching])
def test_after_a_pass_that_ran_out_of_memory(runs_out: Callable[..., None], name: str, room: int,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is left: no page that may not be taken away, no weight that the next pass takes for its own."""
    with dynamic_vram(Library(room)) as library:
        expert = load_expert(bundled.DEMO_HIGH, comfy_host())
        wanted = velocity(expert)
        layer = expert.model.get_submodule(name)
        runs_out(layer, library, monkeypatch)
        with pytest.raises(RuntimeError) as error:
            velocity(expert)
        assert expert.resident.is_oom(error.value)
        assert not library.pins
        expert.resident.free_memory(1 << 20)
        for _ in range(2):
            assert torch.equal(velocity(expert), wanted)
        assert not library.pins


# fetching the next block


def test_the_next_block_is_fetched_while_one_computes() -> None:
    """All its weights at once, by the stream that does not wait for the computing of the block before."""
    with dynamic_vram(Library(room=0)) as library:
        expert = load_expert(bundled.DEMO_HIGH, comfy_host())
        blocks = watched(expert, library)
        for _ in range(2):
            velocity(expert)
            begin = [library.events.index(("compute", i)) for i in range(len(blocks))]
            streams = []
            for i, (block, start, stop) in enumerate(zip(blocks, [-1, *begin], begin, strict=False)):
                since = library.events[start + 1:stop]
                fetched = [address for what, address, *_ in since if what == "fault" and address in block]
                assert fetched == block
                if i:
                    assert not [address for what, address, *_ in since if what == "fault" and address not in block]
                    copying = {stream for what, stream, *_ in since if what == "copy"}
                    assert len(copying) == 1 and ("wait", *copying, "computing") not in since
                    streams.append(copying)
            assert all(one != other for one, other in pairwise(streams))
            library.events.clear()


@pytest.mark.parametrize("room", [0, 100])
def test_one_block_at_a_time_is_held(room: int) -> None:
    """On pages that may not be taken away, or where there is no room for them in ComfyUI's two buffers."""
    from comfy.memory_management import vram_aligned_size

    with dynamic_vram(Library(room)) as library:
        expert = load_expert(bundled.DEMO_HIGH, comfy_host())
        velocity(expert)
        blocks = list(expert.model.blocks)
        held: list[int] = []
        for block in blocks:
            block.register_forward_pre_hook(lambda *_: held.append(library.pins))
        velocity(expert)
        assert held == [sum(map(pages, layers(block))) if room else 0 for block in blocks]
        assert not library.pins
        size = max(vram_aligned_size([part for layer in layers(block) for part in (layer.weight, layer.bias)])
                   for block in blocks)
        assert [buffer.used for buffer in library.cast_buffers.values()] == ([] if room else [size, size])


def pages(layer: torch.nn.Module) -> int:
    """Return how many pages a layer's weights are on."""
    vbar, address, size = layer._v
    return (address + size - vbar.base_addr - 1) // PAGE - (address - vbar.base_addr) // PAGE + 1


def watched(expert: Expert, library: Library) -> list[list[int]]:
    """Let the blocks say when they compute; return the addresses of their layers' weights."""
    velocity(expert)
    for i, block in enumerate(expert.model.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: library.events.append(("compute", i)))
    library.events.clear()
    return [[layer._v[1] for layer in layers(block)] for block in expert.model.blocks]


@pytest.mark.parametrize("by_comfyui", [True, False])
def test_stop_in_the_middle_of_a_pass(by_comfyui: bool) -> None:
    """ComfyUI empties the queues after each node; without that, the next pass does."""
    import comfy.model_management as management
    import comfy.model_prefetch

    with dynamic_vram(Library()) as library:
        expert = load_expert(bundled.DEMO_HIGH, comfy_host())
        wanted = velocity(expert)
        stop = expert.model.blocks[2].attn2.register_forward_pre_hook(
            lambda *_: management.interrupt_current_processing())
        with pytest.raises(management.InterruptProcessingException):
            velocity(expert)
        stop.remove()
        if by_comfyui:
            after_a_node(())
            assert not library.pins
        assert torch.equal(velocity(expert), wanted)
        assert not library.pins and not comfy.model_prefetch.PREFETCH_QUEUES


def test_a_model_that_is_no_longer_used_is_gone_at_once() -> None:
    """Not only when Python next looks for circles of references."""
    with dynamic_vram(Library()) as library:
        expert = load_expert(bundled.DEMO_HIGH, comfy_host())
        velocity(expert)
        assert library.vbars and library.host_buffers
        gc.disable()
        try:
            del expert
            assert not library.vbars
        finally:
            gc.enable()
