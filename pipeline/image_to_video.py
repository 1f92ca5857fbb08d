"""Sample a clip: the schedule, the two experts and guidance put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .checkpoint.expert import HEAD_DIM, Expert
from .first_frame import FirstFrame
from .latents import denormalise
from .request import RequestError, Sampling
from .sampling.denoise import Predict, denoise, guided
from .sampling.schedule import EXPERT_NAMES, expert_for, new_scheduler


@dataclass(frozen=True)
class Wan22Model:
    """Both experts of Wan 2.2 I2V-A14B, the content of a WAN22_MODEL socket."""

    high: Expert
    low: Expert

    @property
    def experts(self) -> tuple[Expert, Expert]:
        """Indexed by schedule.HIGH and schedule.LOW."""
        return self.high, self.low

    @property
    def patcher(self) -> Any:
        """What ComfyUI's cache weighs first."""
        return getattr(self.high.resident, "patcher", None)

    def get_models(self) -> list[Any]:
        """Every patcher, for ComfyUI's memory accounting."""
        return [e.resident.patcher for e in self.experts if hasattr(e.resident, "patcher")]


@dataclass(frozen=True)
class Watch:
    """What the caller wants to hear while a clip is sampled; either function may raise to stop the run.

    `before_pass(step, expert)` precedes each pass through a model (expert: 0 high-noise, 1 low-noise);
    `after_step(step, clean)` follows each step with the predicted clean, normalised latents (1, 16, T, h, w).
    """

    before_pass: Callable[[int, int], None] = lambda step, expert: None
    after_step: Callable[[int, torch.Tensor], None] = lambda step, clean: None


def _embeddings(conditioning: list[list[Any]], text_dim: int, which: str) -> torch.Tensor:
    """Text embeddings (1, 512, text_dim) of a CONDITIONING; longer padding, which ComfyUI allows, is cut off."""
    if len(conditioning) != 1:
        raise RequestError(f"The {which} conditioning has {len(conditioning)} parts; this sampler takes one. "
                           "Connect Encode Prompt directly.")
    embeddings = conditioning[0][0]
    if embeddings.shape[-1] != text_dim:
        raise RequestError(f"The {which} text embeddings are {embeddings.shape[-1]} wide, the experts read {text_dim}. "
                           "Use the text encoder that belongs to them: the bundled one for the bundled model, "
                           "umt5_xxl for Wan 2.2.")
    return embeddings[:, :512]


def activation_bytes(latent_shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> int:
    """Estimate of one pass's peak: about 11 hidden states, as measured at full size (3.75 GB for 32,760 tokens)."""
    tokens = latent_shape[2] * latent_shape[3] * latent_shape[4] // 4
    return 11 * tokens * dim * max(2, dtype.itemsize)


@torch.no_grad()
def sample(model: Wan22Model, positive: list[list[Any]], negative: list[list[Any]], first_frame: FirstFrame,
           sampling: Sampling, watch: Watch = Watch()) -> torch.Tensor:
    """Raw latents (1, 16, T, h, w), float32 on the CPU, of the clip that starts with the first frame.

    The noise comes from the CPU's generator, so that a seed gives the same clip on every device. Raises RequestError
    before any work for settings out of range or text embeddings of another model.
    """
    sampling.check()
    texts = [(_embeddings(positive, e.text_dim, "positive"), _embeddings(negative, e.text_dim, "negative"))
             for e in model.experts]
    scheduler = new_scheduler(sampling.scheduler, sampling.num_inference_steps, sampling.shift)
    generator = torch.Generator("cpu").manual_seed(sampling.seed)
    latents = torch.randn(first_frame.latent_shape, generator=generator)
    condition = first_frame.condition()
    step = 0

    def predict_for(timestep: float) -> Predict:
        index = expert_for(timestep, sampling.boundary)
        expert = model.experts[index]
        need = activation_bytes(first_frame.latent_shape, expert.model.config.num_attention_heads * HEAD_DIM,
                                expert.compute_dtype)
        device = expert.resident.bring(need)
        inner = guided(expert.model, condition.to(device), *(t.to(device, expert.compute_dtype) for t in texts[index]),
                       sampling.guidance[index], lambda: watch.before_pass(step, index))
        return lambda x, t: inner(x.to(device), t.to(device)).to(x.device)

    def after_step(index: int, x: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        nonlocal step
        if not bool(x.isfinite().all()):
            which = expert_for(float(scheduler.timesteps[index]), sampling.boundary)
            raise RuntimeError(f"The {EXPERT_NAMES[which]} expert ({model.experts[which].name}) gave values that are "
                               f"not numbers at step {index + 1}. Its file may be damaged, or the attention back end "
                               "does not suit this GPU.")
        watch.after_step(index, clean)
        step = index + 1
        return x

    return denormalise(denoise(latents, scheduler, predict_for, after_step))
