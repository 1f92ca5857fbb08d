"""The two stages of a clip on models that another program samples: its loaders, patches and solvers, our schedule.

What differs from program to program is one function, `RunStage`; ComfyUI's is comfy_host.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .first_frame import FirstFrame
from .image_to_video import new_noise
from .latent_socket import leftover_of, start_of
from .request import Sampling
from .sampling.schedule import sigmas_of, spans, steps_of


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


def sample_stages(run: RunStage, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
                  sampling: Sampling, latent: dict[str, Any] | None = None) -> dict[str, Any]:
    """LATENT of the clip: raw latents (1, 16, T, h, w), after the high-noise stage with ComfyUI's leftover noise.

    A solver starts anew at the second stage, as it does in ComfyUI's own two-stage graphs, so that nothing but the
    samples goes from one stage to the other. Raises RequestError for settings out of range or a latent that does not
    fit, before any work.
    """
    sampling.check()
    steps, shape = steps_of(sampling), first_frame.latent_shape
    if steps.start:
        latents, noise = leftover_of(latent, sampling, shape), torch.zeros(shape)
    else:
        raw = start_of(latent, sampling, shape)
        latents, noise = torch.zeros(shape) if raw is None else raw, new_noise(shape, sampling.seed)
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    conditionings = [with_first_frame(c, first_frame) for c in (positive, negative)]
    for expert, span in enumerate(spans(sampling)):
        part = range(max(span.start, steps.start), min(span.stop, steps.stop))
        if part:
            latents = run(Stage(expert, part, sigmas[part.start : part.stop + 1], sampling.guidance[expert], noise,
                                latents, *conditionings))
            noise = torch.zeros(shape)
    return {"samples": latents}
