"""Our transformer and VAE against ComfyUI's own modules, on the same files, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import load as bundled
from pipeline.checkpoint.expert import load_expert
from pipeline.checkpoint.text_encoder import load_text_encoder
from pipeline.checkpoint.vae import load_vae
from pipeline.host import plain_host
from pipeline.prompt import TextEncoder
from pipeline.video.wan_vae import WanVAE
from tests.comfy_in_process import comfy_host

TOLERANCE = 1e-4
"""In standard deviations of what ComfyUI gives."""


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.std()).item()


@pytest.fixture(scope="module", autouse=True)
def comfyui() -> None:
    comfy_host()


@pytest.mark.parametrize("file", [bundled.DEMO_HIGH, bundled.DEMO_LOW], ids=["high", "low"])
@torch.inference_mode()
def test_transformer(file: Path) -> None:
    import comfy.model_management
    import comfy.sd

    core = comfy.sd.load_diffusion_model(str(file))
    comfy.model_management.load_models_gpu([core])
    expert = load_expert(file, comfy_host().host())
    expert.resident.bring(0)
    g = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 36, 3, 8, 12, generator=g), torch.randn(2, 512, expert.text_dim, generator=g)
    t = torch.tensor([937.5, 312.0])
    assert apart(expert.model(x, t, text, return_dict=False)[0], core.model.diffusion_model(x, t, context=text)) \
        < TOLERANCE


@torch.inference_mode()
def test_vae() -> None:
    import comfy.sd

    core = comfy.sd.VAE(sd=load_file(bundled.DEMO_VAE))
    ours = WanVAE(*load_vae(bundled.DEMO_VAE, comfy_host().host()))
    pixels = torch.nn.functional.interpolate(torch.rand(3, 3, 3, 4, 6, generator=torch.Generator().manual_seed(0)),
                                             (9, 64, 96), mode="trilinear")[0].movedim(0, -1)
    wanted = core.encode(pixels)
    found = ours.encode(pixels)
    assert found.shape == wanted.shape and apart(found, wanted) < TOLERANCE
    assert apart(ours.decode(wanted), core.decode(wanted)) < TOLERANCE


def test_vae_of_a_diffusers_folder(tmp_path: Path) -> None:
    resident, _ = load_vae(bundled.DEMO_VAE, plain_host())
    resident.module.save_pretrained(tmp_path / "vae")
    again, _ = load_vae(tmp_path / "vae", plain_host())
    wanted, found = resident.module.state_dict(), again.module.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[k], found[k]) for k in wanted)


def test_text_encoder_of_a_diffusers_pipeline(tmp_path: Path) -> None:
    resident, _, _ = load_text_encoder(bundled.DEMO_TEXT_ENCODER, plain_host())
    resident.module.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    vocabulary = load_file(bundled.DEMO_TEXT_ENCODER)["spiece_model"].numpy().tobytes()
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
