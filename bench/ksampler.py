"""ComfyUI's KSampler on sigmas that are given, as the peer of our sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.samplers
import torch

from pipeline.models.condition import Condition
from pipeline.request import Sampling
from pipeline.sampling.bridge import with_condition
from pipeline.sampling.sampler import new_noise
from pipeline.sampling.schedule import sigmas_of, spans, steps_of


def ksampler(model: Any, positive: list[list[Any]], negative: list[list[Any]], condition: Condition,
             sigmas: torch.Tensor, guidance_scale: float, noise: torch.Tensor, latents: torch.Tensor,
             tick: Callable[[], None]) -> torch.Tensor:
    """Sample a MODEL by Euler; return raw latents (1, 16, T, h, w), as ComfyUI leaves them. tick() follows each step.

    noise: to add to `latents`, zeros for latents that hold leftover noise.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(with_condition(positive, condition), with_condition(negative, condition))
    guider.set_cfg(guidance_scale)
    return guider.sample(noise, latents, comfy.samplers.sampler_object("euler"), sigmas, callback=lambda *_: tick(),
                         disable_pbar=True, seed=0)


def ksampler_stages(models: Mapping[str, Any], positive: list[list[Any]], negative: list[list[Any]],
                    condition: Condition, sampling: Sampling, tick: Callable[[], None]) -> torch.Tensor:
    """Sample the steps of a run by Euler with the MODELs, by HIGH and LOW, that they are for; otherwise as above."""
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    noise = new_noise(condition.latent_shape, sampling.seed)
    latents = torch.zeros_like(noise)
    for expert, steps in spans(sampling).items():
        if steps.start in steps_of(sampling):
            latents = ksampler(models[expert], positive, negative, condition, sigmas[steps.start : steps.stop + 1],
                               sampling.guidance[expert], noise, latents, tick)
            noise = torch.zeros_like(noise)
    return latents
