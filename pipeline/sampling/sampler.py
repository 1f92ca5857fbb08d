"""Sample a clip: the schedule, the two experts and guidance put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoint.mmap import read_ahead
from ..models.expert import HEAD_DIM, Expert
from ..models.first_frame import FirstFrame
from ..models.latents import denormalise, normalise
from ..models.load import Wan22Model
from ..models.memory import activation_bytes, preflight, with_more_room
from ..request import MAX_PROMPT_TOKENS, RequestError, Sampling
from .denoise import Predict, denoise, guided, guided_in_one_pass, velocity_of
from .resume import Unfinished, history, restore, schedule_of, start_of, state_of, unfinished_latent
from .schedule import EXPERT_NAMES, HIGH, LOW, new_scheduler, sigmas_of, spans, steps_of

ADVICE = "Lower the size or num_frames, switch batched_guidance off, or choose a smaller file (fp8_scaled, GGUF)."


@dataclass(frozen=True)
class Watch:
    """What the caller wants to hear while a clip is sampled; either function may raise to stop the run.

    `before_pass(step, expert)` precedes each pass through a model (expert: 0 high-noise, 1 low-noise);
    `after_step(step, clean)` follows each step with the predicted clean, normalised latents (1, 16, T, h, w).
    """

    before_pass: Callable[[int, int], None] = lambda step, expert: None
    after_step: Callable[[int, torch.Tensor], None] = lambda step, clean: None


def _embeddings(conditioning: list[list[Any]], text_dim: int, which: str) -> torch.Tensor:
    """Text embeddings (1, 512, text_dim) of a CONDITIONING, cut off or filled up with zeros.

    ComfyUI allows longer padding; the model was trained on 512 with zeros behind the text (wan/modules/model.py).
    """
    if len(conditioning) != 1:
        raise RequestError(f"The {which} conditioning has {len(conditioning)} parts; this sampler takes one. "
                           "Connect Encode Prompt directly.")
    embeddings = conditioning[0][0]
    if embeddings.shape[-1] != text_dim:
        raise RequestError(f"The {which} text embeddings are {embeddings.shape[-1]} wide, the experts read {text_dim}. "
                           "Use the text encoder that belongs to them: the bundled one for the bundled model, "
                           "umt5_xxl for Wan 2.2.")
    kept = embeddings[:, :MAX_PROMPT_TOKENS]
    return torch.nn.functional.pad(kept, (0, 0, 0, MAX_PROMPT_TOKENS - kept.shape[1]))


def pass_bytes(expert: Expert, latent_shape: tuple[int, ...], sampling: Sampling, index: int) -> int:
    """Estimate of the activations of one pass through an expert (index: schedule.HIGH or LOW)."""
    once = activation_bytes(latent_shape, expert.model.config.num_attention_heads * HEAD_DIM, expert.compute_dtype)
    return 2 * once if sampling.batched_guidance and sampling.guidance[index] > 1.0 else once


def describe_memory(model: Wan22Model, first_frame: FirstFrame, sampling: Sampling, free: int, total: int) -> str:
    """What sampling the clip needs of the device and what there is, in bytes free and total, in a line or two."""
    passes = [pass_bytes(e, first_frame.latent_shape, sampling, i) for i, e in enumerate(model.experts)]
    return preflight(max(e.size for e in model.experts), max(passes), free, total)


def new_noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Noise (1, 16, T, h, w), float32, from the CPU's generator: a seed gives the same clip on every device."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def _first_latents(raw: torch.Tensor | None, sampling: Sampling, shape: tuple[int, ...], sigma: float) -> torch.Tensor:
    """Normalised latents of the first step: noise, or a given clip on the straight path to it, s n + (1 - s) x."""
    noise = new_noise(shape, sampling.seed)
    return noise if raw is None else sigma * noise + (1.0 - sigma) * normalise(raw)


def _texts(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]],
           ) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Positive and negative embeddings for each expert."""
    return [(_embeddings(positive, e.text_dim, "positive"), _embeddings(negative, e.text_dim, "negative"))
            for e in model.experts]


def _given(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...],
           ) -> Unfinished | torch.Tensor | None:
    """What the clip goes on from: a state between two steps, raw latents to change, or None for noise alone."""
    start = steps_of(sampling).start
    if start:
        return state_of(latent, sampling, shape, start, float(sigmas_of(sampling)[start]))
    return start_of(latent, sampling, shape)


def check_inputs(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
                 sampling: Sampling, latent: dict[str, Any] | None) -> None:
    """Raise RequestError as `sample_latent` does, before anything else is done."""
    sampling.check()
    _texts(model, positive, negative)
    _given(latent, sampling, first_frame.latent_shape)


@torch.no_grad()
def sample_latent(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
                  sampling: Sampling, watch: Watch = Watch(), latent: dict[str, Any] | None = None) -> dict[str, Any]:
    """LATENT of the clip that starts with the first frame: raw latents (1, 16, T, h, w), float32 on the CPU.

    `latent` is the clip to change when `denoise` is below 1, and the first stage's LATENT for the low-noise stage;
    the high-noise stage gives one that holds all that the other needs. Raises RequestError before any work for
    settings out of range, text embeddings of another model, or a latent that does not fit.
    """
    sampling.check()
    texts = _texts(model, positive, negative)
    sigmas, steps, shape = sigmas_of(sampling), steps_of(sampling), first_frame.latent_shape
    scheduler = new_scheduler(sampling.scheduler, sigmas)
    given = _given(latent, sampling, shape)
    if isinstance(given, Unfinished):
        restore(scheduler, given.history)
        latents = given.latents
    else:
        latents = _first_latents(given, sampling, shape, float(sigmas[0]))
    condition = first_frame.condition()
    guidance = guided_in_one_pass if sampling.batched_guidance else guided
    high, _ = spans(sampling)
    room = [pass_bytes(expert, shape, sampling, index) for index, expert in enumerate(model.experts)]

    def expert_of(step: int) -> int:
        return HIGH if step in high else LOW

    if expert_of(steps[0]) != expert_of(steps[-1]):
        read_ahead(model.low.files)

    def predict_for(step: int) -> Predict:
        index = expert_of(step)
        expert = model.experts[index]

        def predict(x: torch.Tensor, t: torch.Tensor, need: int) -> torch.Tensor:
            room[index] = need  # what one pass was given the next ones get too
            device = expert.resident.bring(need, expert.patches)
            velocity = velocity_of(expert.model, condition.to(device), lambda: watch.before_pass(step, index))
            inner = guidance(velocity, *(text.to(device, expert.compute_dtype) for text in texts[index]),
                             sampling.guidance[index])
            return inner(x.to(device), t.to(device)).to(x.device)

        return lambda x, t: with_more_room(lambda need: predict(x, t, need), expert.resident, room[index],
                                           f"a pass through the {EXPERT_NAMES[index]} expert", ADVICE)

    def after_step(step: int, x: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        if not bool(x.isfinite().all()):
            which = expert_of(step)
            raise RuntimeError(f"The {EXPERT_NAMES[which]} expert ({model.experts[which].name}) gave values that are "
                               f"not numbers at step {step + 1}. Its file may be damaged, or the attention back end "
                               "does not suit this GPU.")
        watch.after_step(step, clean)
        return x

    latents = denoise(latents, scheduler, steps, predict_for, after_step)
    if steps.stop < sampling.num_inference_steps:
        state = Unfinished(latents, steps.stop, history(scheduler), schedule_of(sampling))
        return unfinished_latent(state, float(sigmas[steps.stop]))
    return {"samples": denormalise(latents)}


def sample(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
           sampling: Sampling, watch: Watch = Watch()) -> torch.Tensor:
    """Raw latents of a whole clip from noise, as `sample_latent` has them: the short way for scripts."""
    return sample_latent(model, positive, negative, first_frame, sampling, watch)["samples"]
