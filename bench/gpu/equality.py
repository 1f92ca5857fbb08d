"""The bundled model on the device beside the CPU: how far both engines are from a run in float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.sd
import comfy.utils
import torch

from bench.gpu.plan import OURS, Found
from bench.ksampler import ksampler_stages
from pipeline.host.ops import comfy_host
from pipeline.models import load as bundled
from pipeline.models.condition import Condition, known_ends
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import encode_prompts
from pipeline.request import HIGH, LOW, Sampling
from pipeline.sampling.sampler import sample

WIDTH, HEIGHT, FRAMES = 96, 96, 5
PROMPTS = ("the camera zooms in", "nothing moves")
SAMPLING = Sampling(seed=3, num_inference_steps=6)


@dataclass(frozen=True)
class Reference:
    """A clip by plain torch on the CPU, in float32."""

    pixels: torch.Tensor
    """The first frame, and grey behind it, before they are encoded."""
    positive: list[list[Any]]
    negative: list[list[Any]]
    condition: Condition
    latents: torch.Tensor
    frames: torch.Tensor


@cache
def reference() -> Reference:
    """Return the clip that both engines are compared with."""
    model, encoder, vae = bundled.load(plain_host("cpu"))
    image = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(image.movedim(-1, 1), (HEIGHT, WIDTH), mode="bicubic").movedim(1, -1)
    image = image.clamp(0, 1)
    pixels = torch.cat([image, torch.full((FRAMES - 1, HEIGHT, WIDTH, 3), 0.5)])
    positive, negative = encode_prompts(encoder, *PROMPTS)
    condition = known_ends(vae.encode(pixels))
    latents = sample(model, positive, negative, condition, SAMPLING)
    return Reference(pixels, positive, negative, condition, latents, vae.decode(latents))


def equality(bench: object, row: object, engine: str) -> Found:
    """Compare each part of the path with the reference, from the reference's own inputs to it."""
    wanted = reference()
    parts = _ours() if engine == OURS else _comfyui()
    latents = parts["sample"](wanted)
    again = parts["sample"](wanted)
    found = {"first frame, encoded": _apart(parts["encode"](wanted.pixels), wanted.condition.latents),
             f"latents of {SAMPLING.num_inference_steps} steps": _apart(latents, wanted.latents),
             "the same again": "equal" if torch.equal(latents, again) else _apart(again, latents),
             "frames, decoded": _psnr(parts["decode"](wanted.latents), wanted.frames)}
    found["computed in"] = parts["dtypes"]
    if engine == OURS:
        found["text, encoded"] = _apart(encode_prompts(parts["text"], *PROMPTS)[0][0][0], wanted.positive[0][0])
    return Found(facts=found)


def _ours() -> dict[str, Any]:
    model, encoder, vae = bundled.load(comfy_host())

    def sampled(wanted: Reference) -> torch.Tensor:
        return sample(model, wanted.positive, wanted.negative, wanted.condition, SAMPLING)

    return {"sample": sampled, "encode": vae.encode, "decode": vae.decode, "text": encoder,
            "dtypes": _named(model.high.compute_dtype, vae.dtype)}


def _comfyui() -> dict[str, Any]:
    models = {HIGH: comfy.sd.load_diffusion_model(str(bundled.DEMO_HIGH)),
              LOW: comfy.sd.load_diffusion_model(str(bundled.DEMO_LOW))}
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(bundled.DEMO_VAE)))

    def sampled(wanted: Reference) -> torch.Tensor:
        return ksampler_stages(models, wanted.positive, wanted.negative, wanted.condition, SAMPLING,
                               lambda: None).float().cpu()

    return {"sample": sampled, "encode": vae.encode, "decode": vae.decode,
            "dtypes": _named(compute_dtype(models[HIGH]), vae.vae_dtype)}


def compute_dtype(model: Any) -> torch.dtype:
    """Return the dtype that a MODEL computes in."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def _named(*dtypes: torch.dtype) -> str:
    """Return the names of the dtypes of the experts and of the VAE."""
    return ", VAE ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Return the distance of two tensors over the length of the second."""
    found, wanted = found.double().cpu().reshape(wanted.shape), wanted.double().cpu()
    return f"{float((found - wanted).norm() / wanted.norm()):.1e}"


def _psnr(found: torch.Tensor, wanted: torch.Tensor) -> str:
    square = float((found.double().cpu().reshape(wanted.shape) - wanted.double()).square().mean())
    return f"{-10 * torch.log10(torch.tensor(square)):.1f} dB" if square else "equal"
