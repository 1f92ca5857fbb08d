"""The two stages of a clip on models that another program samples: its loaders, patches and solvers, our schedule.

What differs from program to program is one function, `RunStage`; ComfyUI's is in host/sampling.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoint.kinds import I2V_IN_CHANNELS
from ..models.condition import Condition
from ..models.latents import CHANNELS, denormalise, normalise
from ..request import RequestError, Sampling
from .conditioning import check_pictures
from .hooks import NO_HOOKS, Hooks, Velocity, as_asked, as_chosen, from_noise, unchanged, unwrapped
from .resume import SOLVERS_WITHOUT_HISTORY, STEPS_DONE, StepsDone, finished_latent, leftover_of, start_of
from .sampler import check_start, new_noise, steps_from
from .schedule import sigmas_of, spans, steps_of


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model that a program has loaded; None where it cannot tell."""

    called: str
    """The program's name of its kind."""
    latent_channels: int
    in_channels: int | None
    image_projection: bool
    text_dim: int | None


def check_models(models: Mapping[str, ModelFacts], positive: list[list[Any]], negative: list[list[Any]]) -> None:
    """Raise RequestError unless the models are Wan 2.2 I2V-A14B experts that read these text embeddings.

    models: by HIGH and LOW.
    """
    for name, conditioning in (("positive", positive), ("negative", negative)):
        check_pictures(conditioning, name)
    for which, model in models.items():
        if (model.latent_channels, model.in_channels, model.image_projection) != (CHANNELS, I2V_IN_CHANNELS, False):
            raise RequestError(f"The {which}-noise MODEL is no Wan 2.2 I2V-A14B expert, which has {CHANNELS} latent "
                               f"channels, {I2V_IN_CHANNELS} input channels and no image projection: ComfyUI takes it "
                               f"for {model.called} with {model.latent_channels}, {model.in_channels or 'unknown'} and "
                               f"{'one' if model.image_projection else 'none'}. Load "
                               f"wan2.2_i2v_{which}_noise_14B.")
        for name, conditioning in (("positive", positive), ("negative", negative)):
            found = next((e.shape[-1] for e, _ in conditioning if model.text_dim not in (None, e.shape[-1])), None)
            if found is not None:
                raise RequestError(f"The {name} text embeddings are {found} wide, the {which}-noise MODEL reads "
                                   f"{model.text_dim}. Use the text encoder that belongs to it: umt5_xxl for Wan 2.2.")


@dataclass(frozen=True)
class Stage:
    """Some consecutive steps of one expert."""

    expert: str
    """HIGH or LOW."""
    steps: range
    sigmas: torch.Tensor
    """Of every step's start and of the end, (len(steps) + 1,), float32."""
    guidance_scale: float
    noise: torch.Tensor
    """Noise that the stage adds to `latents`, (1, 16, T, h, w); zeros when they hold leftover noise already."""
    latents: torch.Tensor
    """Raw, with leftover noise as ComfyUI's samplers leave it; zeros for a clip from noise alone."""
    positive: list[list[Any]]
    negative: list[list[Any]]
    scheduler: str
    """One of request.SCHEDULERS."""
    wrap: Callable[[Velocity, int], Velocity] | None = None
    """(velocity, step) -> the velocity to use in that step; None: as it is."""


RunStage = Callable[[Stage], tuple[torch.Tensor, torch.Tensor]]
"""Runs a stage and gives raw latents (1, 16, T, h, w), with the noise of the last sigma left over in them, and the
clean latents, normalised, that its last step predicted."""


def with_condition(conditioning: list[list[Any]], condition: Condition) -> list[list[Any]]:
    """Return the conditioning with the known frames as comfy_extras/nodes_wan.py puts them in: raw latents, and a mask
    that is 0 where a frame is known."""
    values = {"concat_latent_image": condition.latents, "concat_mask": 1.0 - condition.mask}
    return [[embeddings, {**options, **values}] for embeddings, options in conditioning]


def check_latent(latent: dict[str, Any] | None, condition: Condition, sampling: Sampling, hooks: Hooks = NO_HOOKS,
                 ) -> None:
    """Raise RequestError as `sample_stages` does for a latent or hooks that do not fit, before anything else."""
    check_hooks(hooks, sampling)
    given = _given(latent, sampling, condition.latent_shape, hooks)
    if not steps_of(sampling).start:  # the second stage starts from what the first left, whatever a hook says
        check_start(given, hooks)


def check_hooks(hooks: Hooks, sampling: Sampling) -> None:
    """Raise RequestError for what the sampler of another program cannot do."""
    if hooks.lora_scale is not as_asked:
        raise RequestError("A LoRA on a MODEL keeps its scale in every step. Set its start_percent to 0, end_percent "
                           "to 1, fade_in and fade_out to 0, or use Wan 2.2 Sampler.")
    if (hooks.after_step is not unchanged and hooks.scheduler is as_chosen
            and sampling.scheduler not in SOLVERS_WITHOUT_HISTORY):
        raise RequestError(f"The steering of latents between steps needs the scheduler euler on a MODEL, whose "
                           f"{sampling.scheduler} starts anew wherever it is interrupted. Choose euler.")


def _given(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...], hooks: Hooks,
           ) -> torch.Tensor | None:
    """Return raw latents (1, 16, T, h, w) to go on from, or None for noise alone."""
    if steps_of(sampling).start:
        return leftover_of(latent, sampling, shape)
    return start_of(latent, sampling, shape, by_hook=hooks.start is not from_noise)


def sample_stages(run: RunStage, positive: list[list[Any]], negative: list[list[Any]], condition: Condition,
                  sampling: Sampling, latent: dict[str, Any] | None = None, hooks: Hooks = NO_HOOKS) -> dict[str, Any]:
    """Return the LATENT of the clip: raw latents (1, 16, T, h, w), after the high-noise stage with ComfyUI's leftover
    noise.

    A solver starts anew at the second stage, as it does in ComfyUI's own two-stage graphs, so that nothing but the
    samples goes from one stage to the other. Raises RequestError for settings out of range or a latent that does not
    fit, before any work, and RuntimeError when a model gives values that are not numbers.
    """
    sampling.check()
    check_latent(latent, condition, sampling, hooks)
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    latents, noise, steps = _start(_given(latent, sampling, condition.latent_shape, hooks), sampling,
                                   condition.latent_shape, sigmas, hooks)
    conditionings = [with_condition(c, condition) for c in (positive, negative)]
    for expert, span in spans(sampling).items():
        part = range(max(span.start, steps.start), min(span.stop, steps.stop))
        for scheduler, steps_at_once in _parts(part, sampling.scheduler, hooks):
            wrap = None if hooks.wrap is unwrapped else _wrap_of(hooks, expert)
            ends = sigmas[steps_at_once.start : steps_at_once.stop + 1]
            latents, clean = run(Stage(expert, steps_at_once, ends, sampling.guidance[expert], noise, latents,
                                       *conditionings, scheduler, wrap))
            if not bool(latents.isfinite().all()):
                raise RuntimeError(f"The {expert}-noise MODEL gave values that are not numbers. Its file may "
                                   "be damaged, or a patch on it (attention, compile) does not suit this GPU.")
            if hooks.after_step is not unchanged and scheduler in SOLVERS_WITHOUT_HISTORY:
                latents = _after_step(hooks, steps_at_once[-1], float(ends[-1]), latents, clean)
            noise = torch.zeros(condition.latent_shape)
    total = len(sigmas) - 1
    if steps.stop < total:
        return {"samples": latents, STEPS_DONE: StepsDone(steps.stop, total, latents)}
    return finished_latent(latents, total)


def _start(given: torch.Tensor | None, sampling: Sampling, shape: tuple[int, ...], sigmas: torch.Tensor, hooks: Hooks,
           ) -> tuple[torch.Tensor, torch.Tensor, range]:
    """Return raw latents and noise of the first stage, as Stage has them, and the steps to take."""
    steps = steps_of(sampling)
    if given is not None:
        return given, torch.zeros(shape) if steps.start else new_noise(shape, sampling.seed), steps
    noise = new_noise(shape, sampling.seed)
    if hooks.start is from_noise:
        return torch.zeros(shape), noise, steps
    latents, first = hooks.start(noise, sigmas)
    steps = steps_from(first, steps)
    sigma = float(sigmas[steps.start])
    if sigma == 1.0:  # all noise: there is no clip to divide the noise out of
        return torch.zeros(shape), latents, steps
    return denormalise(latents / (1.0 - sigma)), torch.zeros(shape), steps


def _parts(steps: range, chosen: str, hooks: Hooks) -> list[tuple[str, range]]:
    """Return the steps that are sampled in one go, with their scheduler.

    Where latents may change between steps, those of a solver without history go one by one. Steps of others, which
    only a hook that chooses the scheduler can have here, are not interrupted.
    """
    parts: list[tuple[str, range]] = []
    for step in steps:
        name = hooks.scheduler(step, chosen)
        alone = hooks.after_step is not unchanged and name in SOLVERS_WITHOUT_HISTORY
        if parts and parts[-1][0] == name and not alone:
            parts[-1] = (name, range(parts[-1][1].start, step + 1))
        else:
            parts.append((name, range(step, step + 1)))
    return parts


def _wrap_of(hooks: Hooks, expert: str) -> Callable[[Velocity, int], Velocity]:
    return lambda velocity, step: hooks.wrap(velocity, step, expert)


def _after_step(hooks: Hooks, step: int, sigma_next: float, latents: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Return raw latents with leftover noise after the hook; the same bits when it leaves them as they are."""
    before = normalise(latents) * (1.0 - sigma_next)
    after = hooks.after_step(step, sigma_next, before, clean)
    return latents if after is before else denormalise(after / (1.0 - sigma_next))
