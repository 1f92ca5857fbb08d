"""The two stages of a clip on models that another program samples: its loaders, patches and solvers, our schedule.

What differs from program to program is one function, `RunStage`; ComfyUI's is comfy_host.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoint.kinds import I2V_IN_CHANNELS
from ..models.first_frame import FirstFrame
from ..models.latents import CHANNELS
from ..request import RequestError, Sampling
from .resume import leftover_of, start_of
from .sampler import new_noise
from .schedule import EXPERT_NAMES, sigmas_of, spans, steps_of


@dataclass(frozen=True)
class ModelFacts:
    """What a program tells of a model that it has loaded; None where it cannot."""

    called: str
    """What the program takes it for."""
    latent_channels: int
    in_channels: int | None
    image_projection: bool
    text_dim: int | None


def check_models(models: Sequence[ModelFacts], positive: list[list[Any]], negative: list[list[Any]]) -> None:
    """Raise RequestError unless the models are Wan 2.2 I2V-A14B experts that read these text embeddings.

    They are indexed by schedule.HIGH and schedule.LOW.
    """
    for model, which in zip(models, EXPERT_NAMES, strict=True):
        if (model.latent_channels, model.in_channels, model.image_projection) != (CHANNELS, I2V_IN_CHANNELS, False):
            raise RequestError(f"The {which} MODEL is no Wan 2.2 I2V-A14B expert, which has {CHANNELS} latent "
                               f"channels, {I2V_IN_CHANNELS} input channels and no image projection: ComfyUI takes it "
                               f"for {model.called} with {model.latent_channels}, {model.in_channels or 'unknown'} and "
                               f"{'one' if model.image_projection else 'none'}. Load "
                               f"wan2.2_i2v_{which.replace('-', '_')}_14B.")
        for name, conditioning in (("positive", positive), ("negative", negative)):
            found = next((e.shape[-1] for e, _ in conditioning if e.shape[-1] != model.text_dim), None)
            if found is not None:
                raise RequestError(f"The {name} text embeddings are {found} wide, the {which} MODEL reads "
                                   f"{model.text_dim}. Use the text encoder that belongs to it: umt5_xxl for Wan 2.2.")


@dataclass(frozen=True)
class Stage:
    """Some consecutive steps of one expert."""

    expert: int
    """schedule.HIGH or schedule.LOW."""
    steps: range
    sigmas: torch.Tensor
    """Of every step's start and of the end, (len(steps) + 1,), float32."""
    guidance_scale: float
    noise: torch.Tensor
    """What the stage adds to `latents`, (1, 16, T, h, w); zeros when they hold leftover noise already."""
    latents: torch.Tensor
    """Raw, with leftover noise as ComfyUI's samplers leave it; zeros for a clip from noise alone."""
    positive: list[list[Any]]
    negative: list[list[Any]]


RunStage = Callable[[Stage], torch.Tensor]
"""Runs a stage and gives raw latents (1, 16, T, h, w), with the noise of the last sigma left over in them."""


def with_first_frame(conditioning: list[list[Any]], first_frame: FirstFrame) -> list[list[Any]]:
    """The conditioning with the first frame as comfy_extras/nodes_wan.py puts it in: raw latents, and a mask that is
    0 where a frame is known."""
    values = {"concat_latent_image": first_frame.latents, "concat_mask": 1.0 - first_frame.mask()}
    return [[embeddings, {**options, **values}] for embeddings, options in conditioning]


def check_latent(latent: dict[str, Any] | None, first_frame: FirstFrame, sampling: Sampling) -> None:
    """Raise RequestError as `sample_stages` does for a latent that does not fit, before anything else is done."""
    _given(latent, sampling, first_frame.latent_shape)


def _given(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...]) -> torch.Tensor | None:
    """What the stages go on from: raw latents (1, 16, T, h, w), or None for noise alone."""
    if steps_of(sampling).start:
        return leftover_of(latent, sampling, shape)
    return start_of(latent, sampling, shape)


def sample_stages(run: RunStage, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
                  sampling: Sampling, latent: dict[str, Any] | None = None) -> dict[str, Any]:
    """LATENT of the clip: raw latents (1, 16, T, h, w), after the high-noise stage with ComfyUI's leftover noise.

    A solver starts anew at the second stage, as it does in ComfyUI's own two-stage graphs, so that nothing but the
    samples goes from one stage to the other. Raises RequestError for settings out of range or a latent that does not
    fit, before any work, and RuntimeError when a model gives values that are not numbers.
    """
    sampling.check()
    steps, shape = steps_of(sampling), first_frame.latent_shape
    given = _given(latent, sampling, shape)
    latents = torch.zeros(shape) if given is None else given
    noise = torch.zeros(shape) if steps.start else new_noise(shape, sampling.seed)
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    conditionings = [with_first_frame(c, first_frame) for c in (positive, negative)]
    for expert, span in enumerate(spans(sampling)):
        part = range(max(span.start, steps.start), min(span.stop, steps.stop))
        if part:
            latents = run(Stage(expert, part, sigmas[part.start : part.stop + 1], sampling.guidance[expert], noise,
                                latents, *conditionings))
            if not bool(latents.isfinite().all()):
                raise RuntimeError(f"The {EXPERT_NAMES[expert]} MODEL gave values that are not numbers. Its file may "
                                   "be damaged, or a patch on it (attention, compile) does not suit this GPU.")
            noise = torch.zeros(shape)
    return {"samples": latents}
