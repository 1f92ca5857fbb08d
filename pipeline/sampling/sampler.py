"""Sample a clip with both experts: the schedule, guidance, the hooks and the host's memory put together."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from ..checkpoint.mmap import read_ahead
from ..models.attention import TransformerOptions, use_attention
from ..models.condition import Condition
from ..models.expert import HEAD_DIM, Expert
from ..models.latents import denormalise, normalise
from ..models.load import Wan22Model
from ..models.memory import activation_bytes, preflight, with_oom_retry
from ..models.patches import beside_bytes
from ..request import RequestError, Sampling
from .conditioning import text_embeddings
from .denoise import Predict, denoise, guided, guided_in_one_pass, velocity_of
from .hooks import NEGATIVE, NO_HOOKS, PAIR, POSITIVE, Hooks, ModelInputs, as_chosen, from_noise
from .resume import (
    Unfinished,
    finished_latent,
    history,
    restore,
    schedule_of,
    start_of,
    state_of,
    unfinished_latent,
)
from .schedule import NUM_TRAIN_TIMESTEPS, new_scheduler, sigmas_of, spans, steps_of

ADVICE = ("Lower the size or num_frames, switch batched_guidance off, use fewer LoRAs, or choose a smaller file "
          "(fp8_scaled, GGUF).")

COND_OR_UNCOND = {POSITIVE: [0], NEGATIVE: [1], PAIR: [0, 1]}
"""Branch of guidance -> ComfyUI's numbers of the texts in its batch."""


def describe_memory(model: Wan22Model, condition: Condition, sampling: Sampling, free: int, total: int) -> str:
    """Return a line or two on what sampling needs of the device's memory and what there is, in bytes free and total."""
    passes = [pass_bytes(expert, condition.latent_shape) * (2 if sampling.batched_guidance and guidance > 1.0 else 1)
              for expert, guidance in zip(model.experts.values(), sampling.guidance.values(), strict=True)]
    beside = [beside_bytes(expert.patches, expert.compute_dtype.itemsize) for expert in model.experts.values()]
    needs = [one_pass + loras for one_pass, loras in zip(passes, beside, strict=True)]
    return preflight(max(expert.size for expert in model.experts.values()), max(needs), free, total)


def pass_bytes(expert: Expert, latent_shape: tuple[int, ...]) -> int:
    """Estimate the activations of one pass of latents (B, 16, T, h, w) through an expert, in bytes."""
    dim = expert.model.config.num_attention_heads * HEAD_DIM
    return latent_shape[0] * activation_bytes(latent_shape, dim, expert.compute_dtype)


def new_noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Return noise (1, 16, T, h, w), float32, from the CPU's generator: a seed gives the same clip on every device."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def noise_of_steps(shape: tuple[int, ...], seed: int, first: int) -> torch.Generator:
    """Return the generator whose next draw of that shape is the noise of step `first`, counted from 0.

    The seed's initial noise is drawn first and that of each earlier step after it, so that a run which begins at a
    later step draws what it would have drawn without the stop.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for _ in range(first + 1):
        torch.randn(shape, generator=generator)
    return generator


def sample(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], condition: Condition,
           sampling: Sampling, hooks: Hooks = NO_HOOKS) -> torch.Tensor:
    """Return raw latents of a whole clip from noise, as `sample_latent` has them: the short way for scripts."""
    return sample_latent(model, positive, negative, condition, sampling, hooks)["samples"]


def check_inputs(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], condition: Condition,
                 sampling: Sampling, latent: dict[str, Any] | None, hooks: Hooks = NO_HOOKS) -> None:
    """Raise RequestError as `sample_latent` does, before anything else is done."""
    sampling.check()
    _texts(model, positive, negative, sampling)
    check_start(_given(latent, sampling, condition.latent_shape, hooks), hooks)


@torch.no_grad()
def sample_latent(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], condition: Condition,
                  sampling: Sampling, hooks: Hooks = NO_HOOKS, latent: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the LATENT of the clip that the condition is of: raw latents (1, 16, T, h, w), float32 on the CPU.

    `latent` is the clip to change when `denoise` is below 1, and the first stage's LATENT for the low-noise stage;
    the high-noise stage gives one that holds all that the other needs. Raises RequestError before any work for
    settings out of range, text embeddings of another model, or a latent that does not fit.
    """
    sampling.check()
    texts = _texts(model, positive, negative, sampling)
    sigmas, shape = sigmas_of(sampling), condition.latent_shape
    given = _given(latent, sampling, shape, hooks)
    latents, steps = _start(given, sampling, shape, hooks)
    scheduler = _scheduler(sampling.scheduler, sampling, shape, steps.start)
    if isinstance(given, Unfinished):
        restore(scheduler, given.history)
    channels = condition.channels()
    guidance = guided_in_one_pass if sampling.batched_guidance else guided
    expert_of = {step: expert for expert, span in spans(sampling).items() for step in span}
    room: dict[str, int] = {}  # by expert: what one pass was given after it had failed, the next ones get too
    if expert_of[steps[0]] != expert_of[steps[-1]]:
        read_ahead(model.low.files)

    def predict_for(step: int) -> Predict:
        which = expert_of[step]
        expert = model.experts[which]
        if step > steps[0] and expert_of[step - 1] != which:
            _remove_patches(model)
        device = expert.resident.device
        texts_there = {branch: text.to(device, expert.compute_dtype) for branch, text in texts[which].items()}
        one_pass = velocity_of(expert.model, texts_there)
        patches = tuple(replace(patch, scale=hooks.lora_scale(step, patch.lora)) for patch in expert.patches)

        def velocity(x: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            def run(need: int) -> torch.Tensor:
                room[which] = need
                expert.resident.load_to_device(need, patches)
                use_attention(expert.model, expert.attend, _transformer_options(x, timestep, branch, scheduler.sigmas))
                return one_pass(x, timestep, branch, inputs)

            need = max(pass_bytes(expert, tuple(x.shape)), room.get(which, 0))
            return with_oom_retry(run, expert.resident, need, f"a pass through the {which}-noise expert", ADVICE)

        def predict(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            inputs = ModelInputs(channels.to(device))
            inner = guidance(hooks.wrap(velocity, step, which), inputs, sampling.guidance[which])
            return inner(x.to(device), timestep.to(device)).to(x.device)

        return predict

    def after_step(step: int, sigma_next: float, x: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        if not bool(x.isfinite().all()):
            which = expert_of[step]
            raise RuntimeError(f"The {which}-noise expert ({model.experts[which].name}) gave values that are "
                               f"not numbers at step {step + 1}. Its file may be damaged, or the attention back end "
                               "does not suit this GPU.")
        return hooks.after_step(step, sigma_next, x, clean)

    current = sampling.scheduler
    try:
        for name, part in groupby(steps, lambda step: hooks.scheduler(step, sampling.scheduler)):
            first, *others = part
            if name != current:
                scheduler, current = _scheduler(name, sampling, shape, first), name
            latents = denoise(latents, scheduler, range(first, first + 1 + len(others)), predict_for, after_step)
    finally:
        _remove_patches(model)
        for expert in model.experts.values():  # the options hold tensors, and overrides of other nodes
            use_attention(expert.model, None, {})
    if steps.stop < len(sigmas) - 1:
        if current != sampling.scheduler:
            scheduler = _scheduler(sampling.scheduler, sampling, shape, steps.stop)
        later_noise = hooks.scheduler is not as_chosen  # a motion
        state = Unfinished(latents, steps.stop, history(scheduler), schedule_of(sampling, later_noise))
        return unfinished_latent(state, float(sigmas[steps.stop]))
    return finished_latent(denormalise(latents), len(sigmas) - 1)


def _scheduler(name: str, sampling: Sampling, shape: tuple[int, ...], first: int) -> Any:
    """Return a new scheduler whose first step is `first`, counted from 0, for latents of that shape."""
    noise = noise_of_steps(shape, sampling.seed, first) if name == "lcm" else None
    return new_scheduler(name, sigmas_of(sampling), noise)


def _transformer_options(x: torch.Tensor, timestep: torch.Tensor, branch: str, sigmas: torch.Tensor,
                         ) -> TransformerOptions:
    """Return what ComfyUI tells attention overrides of a pass (comfy/samplers.py; comfy/ldm/wan/model.py).

    x: latents (B, 16, T, h, w); timestep 0..1000; sigmas of the whole schedule.
    """
    return {"cond_or_uncond": COND_OR_UNCOND[branch], "sigmas": (timestep / NUM_TRAIN_TIMESTEPS).reshape(1),
            "sample_sigmas": sigmas.to(x.device), "grid_sizes": (x.shape[2], x.shape[3] // 2, x.shape[4] // 2)}


def _remove_patches(model: Wan22Model) -> None:
    """Free the device memory that LoRAs take beside the experts, which the host does not see."""
    for expert in model.experts.values():
        expert.resident.remove_patches()


def _texts(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], sampling: Sampling,
           ) -> dict[str, dict[str, torch.Tensor]]:
    """Return the text embeddings by expert and branch of guidance.

    At guidance 1 the negative conditioning is not read: it may be anything then.
    """
    if max(sampling.guidance.values()) == 1.0:
        negative = positive
    found = {}
    for which, expert in model.experts.items():
        texts = (text_embeddings(positive, expert.text_dim, "positive"),
                 text_embeddings(negative, expert.text_dim, "negative"))
        found[which] = {POSITIVE: texts[0], NEGATIVE: texts[1], PAIR: torch.cat(texts)}
    return found


def _given(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...], hooks: Hooks,
           ) -> Unfinished | torch.Tensor | None:
    """Return what the clip goes on from: a state between two steps, raw latents to change, or None for noise."""
    start = steps_of(sampling).start
    if start:
        return state_of(latent, sampling, shape, start, float(sigmas_of(sampling)[start]))
    return start_of(latent, sampling, shape, by_hook=hooks.start is not from_noise)


def check_start(given: object, hooks: Hooks) -> None:
    """Raise RequestError when a latent to change and a hook both say what the clip starts from."""
    if isinstance(given, torch.Tensor) and hooks.start is not from_noise:
        raise RequestError("Both the latent and another input of the sampler decide what the clip starts from. "
                           "Disconnect one of them.")


def _start(given: Unfinished | torch.Tensor | None, sampling: Sampling, shape: tuple[int, ...], hooks: Hooks,
           ) -> tuple[torch.Tensor, range]:
    """Return normalised latents (1, 16, T, h, w) of the first step, and the steps to take.

    They are a state between two steps; or noise; or a given clip on the straight path to it, s n + (1 - s) x; or what
    the hook makes of the noise.
    """
    check_start(given, hooks)
    steps, sigmas = steps_of(sampling), sigmas_of(sampling)
    if isinstance(given, Unfinished):
        return given.latents, steps
    noise = new_noise(shape, sampling.seed)
    if given is not None:
        sigma = float(sigmas[0])
        return sigma * noise + (1.0 - sigma) * normalise(given), steps
    latents, first = hooks.start(noise, torch.from_numpy(sigmas).float())
    return latents, steps_from(first, steps)


def steps_from(first: int, steps: range) -> range:
    """Return the steps of a stage from `first` on. Raises RequestError when none is left."""
    if first >= steps.stop:
        raise RequestError(f"The clip starts at step {first + 1}, but this run ends with step {steps.stop}. Start at a "
                           "higher sigma, or take more steps.")
    return range(max(first, steps.start), steps.stop)
