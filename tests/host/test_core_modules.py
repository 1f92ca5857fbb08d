"""Our transformer and VAE against ComfyUI's own modules, on the same files, in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import library
from pipeline.checkpoint.library import Slot
from pipeline.models import load as bundled
from pipeline.models.condition import known_ends
from pipeline.models.expert import load_expert
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import TextEncoder
from pipeline.models.umt5 import load_text_encoder
from pipeline.models.vae import WanVAE, load_vae
from pipeline.request import HIGH, LOW, SCHEDULERS, Sampling
from pipeline.sampling.bridge import Stage, with_condition
from pipeline.sampling.schedule import sigmas_of, spans
from tests.support.comfy_in_process import comfy_host, import_comfyui

Weights = dict[str, torch.Tensor]
TOLERANCE = 1e-4
"""In standard deviations of what ComfyUI gives."""


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.std()).item()


@pytest.fixture(scope="module", autouse=True)
def comfyui() -> None:
    import_comfyui()


@pytest.mark.parametrize("file", [bundled.DEMO_HIGH, bundled.DEMO_LOW], ids=["high", "low"])
@torch.inference_mode()
def test_transformer(file: Path) -> None:
    import comfy.model_management
    import comfy.sd

    core = comfy.sd.load_diffusion_model(str(file))
    comfy.model_management.load_models_gpu([core])
    expert = load_expert(file, comfy_host())
    expert.resident.load_to_device(0)
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 36, 3, 8, 12, generator=g), torch.randn(2, 512, expert.text_dim, generator=g)
    t = torch.tensor([937.5, 312.0])
    assert apart(expert.model(x, t, text, return_dict=False)[0], core.model.diffusion_model(x, t, context=text)) \
        < TOLERANCE


@pytest.mark.parametrize("flag", ["use_split_cross_attention", "use_quad_cross_attention"])
@torch.inference_mode()
def test_the_attention_that_comfyui_was_started_with(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.cli_args import args
    from comfy.ldm.modules import attention

    passes = 0

    def chosen(*tensors: torch.Tensor, **options: torch.Tensor | None) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return attention.attention_sub_quad(*tensors, **options)

    usual = load_expert(bundled.DEMO_HIGH, comfy_host())
    monkeypatch.setattr(args, flag, True)
    monkeypatch.setattr(attention, "optimized_attention", chosen)
    asked = load_expert(bundled.DEMO_HIGH, comfy_host())
    g = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 36, 3, 8, 12, generator=g), torch.randn(1, 512, usual.text_dim, generator=g)
    found, wanted = (e.model(x, torch.tensor([900.0]), text, return_dict=False)[0] for e in (asked, usual))
    assert passes == 2 * usual.model.config.num_layers
    assert apart(found, wanted) < TOLERANCE


def test_whose_attention_a_gpu_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI's where it was started with another than PyTorch's, as with --use-sage-attention."""
    import comfy.model_management
    from comfy.ldm.modules import attention

    monkeypatch.setattr(comfy.model_management, "is_device_cpu", lambda device: False)
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_sub_quad)
    assert comfy_host().attend is not None
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    assert comfy_host().attend is None


@torch.inference_mode()
def test_vae() -> None:
    import comfy.sd

    core = comfy.sd.VAE(sd=load_file(bundled.DEMO_VAE))
    ours = WanVAE(*load_vae(bundled.DEMO_VAE, comfy_host()))
    pixels = torch.nn.functional.interpolate(torch.rand(3, 3, 3, 4, 6, generator=torch.Generator().manual_seed(0)),
                                             (9, 64, 96), mode="trilinear")[0].movedim(0, -1)
    wanted = core.encode(pixels)
    found = ours.encode(pixels)
    assert found.shape == wanted.shape and apart(found, wanted) < TOLERANCE
    assert apart(ours.decode(wanted), core.decode(wanted)) < TOLERANCE


@pytest.mark.parametrize("scheduler", [name for name in SCHEDULERS if name != "lcm"])  # whose step draws noise
@pytest.mark.parametrize(("boundary", "split"), [(0.95, (1, 3)), (0.7, (3, 1))], ids=["1+3", "3+1"])
@torch.inference_mode()
def test_a_stage_of_one_step_is_a_step(scheduler: str, boundary: float, split: tuple[int, int]) -> None:
    """By every scheduler the same: none has an earlier step to go by."""
    import comfy.sd

    from pipeline.host.sampling import stage_runner

    sampling = Sampling(seed=0, num_inference_steps=4, boundary=boundary, scheduler=scheduler, guidance_scale=1.0)
    assert tuple(map(len, spans(sampling).values())) == split
    expert, steps = next((expert, span) for expert, span in spans(sampling).items() if len(span) == 1)
    core = comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH))
    g = torch.Generator().manual_seed(0)
    text = [[torch.randn(1, 512, core.model.diffusion_model.text_dim, generator=g), {}]]
    text = with_condition(text, known_ends(torch.randn(1, 16, 2, 8, 8, generator=g)))
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()[steps.start : steps.stop + 1]
    stage = Stage(expert, steps, sigmas, 1.0, torch.randn(1, 16, 2, 8, 8, generator=g), torch.zeros(1, 16, 2, 8, 8),
                  text, text, scheduler)
    run = stage_runner({HIGH: core, LOW: core}, sampling)
    found, euler = (run(replace(stage, scheduler=name))[0] for name in (scheduler, "euler"))
    assert apart(found, euler) < TOLERANCE


def in_diffusers_names(weights: Weights) -> Weights:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    return convert_wan_vae_to_diffusers(weights)


def behind(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


VAE_FORMS: dict[str, Callable[[Weights], Weights]] = {
    "official names, as in wan_2.1_vae and Wan2_1_VAE_bf16": dict,
    "DiffSynth-Studio": behind("model."),
    "taken out of a checkpoint": behind("vae."),
    "taken out of an older checkpoint": behind("first_stage_model."),
    "diffusers' names": in_diffusers_names,
    "diffusers' names, taken out": lambda weights: behind("vae.")(in_diffusers_names(weights)),
}


@pytest.fixture(scope="module")
def diffusers_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled VAE as diffusers itself writes it."""
    folder = tmp_path_factory.mktemp("diffusers") / "vae"
    load_vae(bundled.DEMO_VAE, plain_host())[0].module.save_pretrained(folder)
    return folder


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("form", VAE_FORMS)
def test_every_form_of_a_vae_gives_the_same_pixels(form: str, dtype: torch.dtype, diffusers_vae: Path, tmp_path: Path,
                                                   ) -> None:
    """Against the folder that diffusers writes, as far as the dtype can hold it."""
    path = tmp_path / "vae.safetensors"
    save_file({name: weight.to(dtype).contiguous() for name, weight in
               VAE_FORMS[form](load_file(bundled.DEMO_VAE)).items()}, path)
    assert library.find_weights([tmp_path], path.name, Slot.VAE, "vae") == path
    wanted, found = (WanVAE(*load_vae(file, plain_host())) for file in (diffusers_vae, path))
    pixels = torch.rand(5, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    latents = wanted.encode(pixels)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-6
    assert apart(found.encode(pixels), latents) < tolerance
    assert apart(found.decode(latents), wanted.decode(latents)) < tolerance


def test_text_encoder_of_a_diffusers_pipeline(tmp_path: Path) -> None:
    weights = load_file(bundled.DEMO_TEXT_ENCODER)
    vocabulary = weights.pop("spiece_model").numpy().tobytes()
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text("{}", "utf-8")
    weights["encoder.embed_tokens.weight"] = weights["shared.weight"].clone()
    save_file(weights, tmp_path / "text_encoder" / "model.safetensors")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(vocabulary)
    encoders = [TextEncoder(*load_text_encoder(p, plain_host()))
                for p in (bundled.DEMO_TEXT_ENCODER, tmp_path / "text_encoder")]
    wanted, found = (e.encode_from_tokens_scheduled(e.tokenize("the camera pans left"))[0][0] for e in encoders)
    assert torch.equal(found, wanted)


def test_fp8_scaled_text_encoder_keeps_its_scales(tmp_path: Path) -> None:
    """As Comfy-Org's umt5_xxl_fp8_e4m3fn_scaled: fp8 matrices of the layers, each with its scale."""
    weights = load_file(bundled.DEMO_TEXT_ENCODER)
    packed = dict(weights)
    for name, weight in weights.items():
        if name.startswith("encoder.block.") and weight.ndim == 2 and "relative" not in name:
            scale = weight.float().abs().max() / 448
            packed[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            packed[name.replace(".weight", ".scale_weight")] = scale
    save_file({**packed, "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}, tmp_path / "umt5.safetensors")
    encoders = [TextEncoder(*load_text_encoder(p, plain_host()))
                for p in (bundled.DEMO_TEXT_ENCODER, tmp_path / "umt5.safetensors")]
    wanted, found = (e.encode_from_tokens_scheduled(e.tokenize("everything turns red"))[0][0] for e in encoders)
    assert ((found - wanted).pow(2).mean() / wanted.pow(2).mean()).sqrt() < 0.05
