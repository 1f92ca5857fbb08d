"""A stage of a clip on ComfyUI's own sampling, for the MODELs of anybody's loaders and patches."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ..bridge import RunStage, Stage
from ..checkpoint.kinds import I2V_IN_CHANNELS
from ..latents import CHANNELS
from ..request import RequestError, Sampling
from ..sampling.schedule import EXPERT_NAMES

SAMPLERS = {"euler": "euler", "unipc": "uni_pc", "dpmpp_2m": "dpmpp_2m"}
"""Our scheduler -> ComfyUI's sampler of that family."""


def _check_i2v_model(model: Any, which: str, conditionings: dict[str, list[list[Any]]]) -> None:
    """Raise RequestError unless a MODEL is a Wan 2.2 I2V-A14B expert that reads these text embeddings."""
    transformer = model.model.diffusion_model
    channels = model.get_model_object("latent_format").latent_channels
    patches = getattr(transformer, "patch_embedding", None)
    inputs = None if patches is None else patches.weight.shape[1]
    projection = getattr(transformer, "img_emb", None) is not None
    if (channels, inputs, projection) != (CHANNELS, I2V_IN_CHANNELS, False):
        raise RequestError(f"The {which} MODEL is no Wan 2.2 I2V-A14B expert, which has {CHANNELS} latent channels, "
                           f"{I2V_IN_CHANNELS} input channels and no image projection: ComfyUI takes it for "
                           f"{type(model.model).__name__} with {channels}, {inputs or 'unknown'} and "
                           f"{'one' if projection else 'none'}. Load wan2.2_i2v_{which.replace('-', '_')}_14B.")
    for name, conditioning in conditionings.items():
        for embeddings, _ in conditioning:
            if embeddings.shape[-1] != transformer.text_dim:
                raise RequestError(f"The {name} text embeddings are {embeddings.shape[-1]} wide, the {which} MODEL "
                                   f"reads {transformer.text_dim}. Use the text encoder that belongs to it: umt5_xxl "
                                   "for Wan 2.2.")


def stage_runner(models: tuple[Any, Any], positive: list[list[Any]], negative: list[list[Any]], sampling: Sampling,
                 ) -> RunStage:
    """Stages on ComfyUI's own sampling, with everything that patches a MODEL in force.

    `models` are indexed by schedule.HIGH and schedule.LOW. The sigmas are given, so that a MODEL's own shift does not
    matter: a flow model's timestep is sigma * 1000 (comfy/model_sampling.py, ModelSamplingDiscreteFlow.timestep).
    Raises RequestError for a MODEL of another kind.
    """
    for model, which in zip(models, EXPERT_NAMES, strict=True):
        _check_i2v_model(model, which, {"positive": positive, "negative": negative})
    total = sampling.num_inference_steps
    show = latent_preview.prepare_callback(models[0], total)

    def run(stage: Stage) -> torch.Tensor:
        def on_step(step: int, clean: torch.Tensor, latents: torch.Tensor, steps_of_stage: int) -> None:
            show(stage.steps.start + step, clean, latents, total)

        guider = comfy.samplers.CFGGuider(models[stage.expert])
        guider.set_conds(stage.positive, stage.negative)
        guider.set_cfg(stage.guidance_scale)
        samples = guider.sample(stage.noise, stage.latents, comfy.samplers.sampler_object(SAMPLERS[sampling.scheduler]),
                                stage.sigmas, callback=on_step, disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
                                seed=sampling.seed).float().cpu()
        if not bool(samples.isfinite().all()):
            raise RuntimeError(f"The {EXPERT_NAMES[stage.expert]} MODEL gave values that are not numbers. Its file may "
                               "be damaged, or a patch on it (attention, compile) does not suit this GPU.")
        return samples

    return run
