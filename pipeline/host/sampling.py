"""Sample the stages of a clip on MODELs with ComfyUI's own samplers."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ..request import Sampling
from ..sampling.bridge import ModelFacts, RunStage, Stage

SAMPLERS = {"euler": "euler", "unipc": "uni_pc", "dpmpp_2m": "dpmpp_2m"}
"""Our scheduler -> ComfyUI's sampler of that family."""


def model_facts(model: Any) -> ModelFacts:
    """What is known of a MODEL."""
    transformer = model.model.diffusion_model
    patches = getattr(transformer, "patch_embedding", None)
    return ModelFacts(called=type(model.model).__name__,
                      latent_channels=model.get_model_object("latent_format").latent_channels,
                      in_channels=None if patches is None else patches.weight.shape[1],
                      image_projection=getattr(transformer, "img_emb", None) is not None,
                      text_dim=getattr(transformer, "text_dim", None))


def _sampler(scheduler: str, steps: int) -> Any:
    """ComfyUI's sampler of our scheduler's family, for a stage of so many steps.

    Its uni_pc solves by order min(3, steps - 1) (comfy/extra_samplers/uni_pc.py, sample_unipc): of one step it makes
    none at all. UniPC itself begins with a step of order 1, x0 + (sigma' / sigma) (x - x0) for a flow model: Euler's.
    """
    return comfy.samplers.sampler_object("euler" if scheduler == "unipc" and steps == 1 else SAMPLERS[scheduler])


def stage_runner(models: tuple[Any, Any], sampling: Sampling) -> RunStage:
    """Stages on ComfyUI's own sampling, with everything that patches a MODEL in force.

    `models` are indexed by schedule.HIGH and schedule.LOW. The sigmas are given, so that a MODEL's own shift does not
    matter: a flow model's timestep is sigma * 1000 (comfy/model_sampling.py, ModelSamplingDiscreteFlow.timestep).
    """
    total = sampling.num_inference_steps
    show = latent_preview.prepare_callback(models[0], total)

    def run(stage: Stage) -> torch.Tensor:
        def on_step(step: int, clean: torch.Tensor, latents: torch.Tensor, steps_of_stage: int) -> None:
            show(stage.steps.start + step, clean, latents, total)

        guider = comfy.samplers.CFGGuider(models[stage.expert])
        guider.set_conds(stage.positive, stage.negative)
        guider.set_cfg(stage.guidance_scale)
        return guider.sample(stage.noise, stage.latents, _sampler(sampling.scheduler, len(stage.steps)), stage.sigmas,
                             callback=on_step, disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                             seed=sampling.seed).float().cpu()

    return run
