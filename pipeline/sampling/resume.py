"""Stop between two steps and go on later, to the same bits as without the stop.

Two things make a run: the latents, and what a multistep scheduler remembers of earlier steps. Both are kept as they
are in memory, since a round trip through raw latents would change the last bits.

A LATENT between two steps holds the samples that ComfyUI's samplers leave there with leftover noise, x / (1 - sigma)
(comfy/model_sampling.py, CONST.inverse_noise_scaling), so that core's KSampler (Advanced) can take the second stage
of a clip whose first is ours, and the other way round. The exact state lies beside them under a key of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..models.latents import denormalise, normalise
from ..request import BOTH, HIGH_ONLY, LOW_ONLY, OFFICIAL, RequestError, Sampling
from .schedule import NOISE_ALONE, has_own_list, step_count, steps_of
from .sigma_lists import read_sigmas

UNFINISHED = "wan22_unfinished"
"""Key of the exact state in a LATENT."""
STEPS_DONE = "wan22_steps_done"
"""Key of a StepsDone in a LATENT between two steps."""
SOLVERS_WITHOUT_HISTORY = ("euler", "lcm")
OFFICIAL_SIGMAS: dict[str, float | str] = {"sigma_schedule": OFFICIAL, "sigmas": ""}
"""The two settings that a schedule leaves out when it is the official one."""
_COUNTS = ("lower_order_nums", "this_order")
_OUTPUTS = ("model_outputs.1", "model_outputs.0")
"""The newest first: every solver that `new_scheduler` gives is of order 2."""


@dataclass(frozen=True)
class Unfinished:
    """A clip between two steps: normalised latents (1, 16, T, h, w), float32, CPU, after `step` steps."""

    latents: torch.Tensor
    step: int
    history: dict[str, torch.Tensor]
    """Of `history`; empty for a scheduler that needs none."""
    schedule: dict[str, float | str]
    """Of `schedule_of`."""


def schedule_of(sampling: Sampling, later_noise: bool = False) -> dict[str, float | str]:
    """Return the settings that cannot change between two steps; the seed too when noise of it is used in later ones.

    later_noise: whether a hook uses it so, as a motion does; the scheduler lcm does in any case.
    For a list of sigmas that is given as such num_inference_steps is its own, and shift stands at its default.
    """
    if has_own_list(sampling):
        sampling = replace(sampling, num_inference_steps=step_count(replace(sampling, denoise=1.0)), shift=5.0)
    settings = {name: getattr(sampling, name)
                for name in ("scheduler", "num_inference_steps", "shift", "boundary", "denoise")}
    sigmas = {"sigma_schedule": sampling.sigma_schedule, "sigmas": ", ".join(map(repr, sampling.sigmas))}
    seed = {"seed": sampling.seed} if later_noise or sampling.scheduler == "lcm" else {}
    return settings | seed | {name: value for name, value in sigmas.items() if value != OFFICIAL_SIGMAS[name]}


def count_steps(schedule: dict[str, Any]) -> int:
    """Return how many steps the clip of a `schedule_of` takes. Raises RequestError for values out of range."""
    sampling = Sampling(**{"seed": 0, **schedule, "sigmas": read_sigmas(schedule.get("sigmas", ""))})
    sampling.check()
    return step_count(sampling)


def history(scheduler: Any) -> dict[str, torch.Tensor]:
    """Return what a diffusers scheduler remembers of its steps: the last predictions, its last sample, its order.

    Names of UniPCMultistepScheduler and DPMSolverMultistepScheduler. UniPC's timestep_list is left out: only an inner
    solver reads it, and `new_scheduler` gives none.
    """
    outputs = getattr(scheduler, "model_outputs", [])
    found = {f"model_outputs.{i}": output for i, output in enumerate(outputs) if output is not None}
    found |= {name: torch.tensor(getattr(scheduler, name)) for name in _COUNTS if hasattr(scheduler, name)}
    if getattr(scheduler, "last_sample", None) is not None:
        found["last_sample"] = scheduler.last_sample
    return found


def is_whole(unfinished: Unfinished, shape: tuple[int, ...]) -> bool:
    """Tell whether a state that was read from a file is one that the functions here made, for latents of that shape."""
    schedule, remembered = unfinished.schedule, unfinished.history
    outputs = [name for name in _OUTPUTS if name in remembered]
    counts = [remembered[name] for name in _COUNTS if name in remembered]
    tensors = [unfinished.latents, *(value for name, value in remembered.items() if name not in _COUNTS)]
    return (isinstance(unfinished.step, int) and _is_schedule(schedule)
            and bool(remembered) == (schedule["scheduler"] not in SOLVERS_WITHOUT_HISTORY)
            and remembered.keys() <= {*_OUTPUTS, *_COUNTS, "last_sample"} and outputs == list(_OUTPUTS[:len(outputs)])
            and all(tuple(value.shape) == shape and value.is_floating_point() for value in tensors)
            and all(value.shape == () and value.dtype == torch.int64 and 0 <= value <= len(outputs)
                    for value in counts))


def _is_schedule(found: Any) -> bool:
    """Tell whether a value that was read from a file is one of `schedule_of`."""
    if not isinstance(found, dict) or not isinstance(found.get("scheduler"), str):
        return False
    known = schedule_of(Sampling(seed=0, scheduler=found["scheduler"]), "seed" in found) | OFFICIAL_SIGMAS
    kinds = {name: type(value) for name, value in known.items()}
    if found.keys() | OFFICIAL_SIGMAS.keys() != kinds.keys():
        return False
    if not all(isinstance(value, int | float if kinds[name] is float else kinds[name])
               for name, value in found.items()):
        return False
    try:
        return count_steps(found) > 0
    except RequestError:
        return False


def restore(scheduler: Any, remembered: dict[str, torch.Tensor]) -> None:
    """Give a new scheduler what `history` took from another of its kind."""
    for name, value in remembered.items():
        attribute, _, index = name.partition(".")
        if index:
            getattr(scheduler, attribute)[int(index)] = value
        else:
            setattr(scheduler, attribute, value.item() if attribute in _COUNTS else value)


def _leftover_samples(latents: torch.Tensor, sigma: float) -> torch.Tensor:
    return denormalise(latents / (1.0 - sigma))


def unfinished_latent(unfinished: Unfinished, sigma: float) -> dict[str, Any]:
    """Return the LATENT of a clip between two steps; sigma, below 1, is where the next step starts."""
    samples = _leftover_samples(unfinished.latents, sigma)
    done = StepsDone(unfinished.step, count_steps(unfinished.schedule), samples)
    return {"samples": samples, UNFINISHED: unfinished, STEPS_DONE: done}


@dataclass(frozen=True)
class StepsDone:
    """How far the clip of a LATENT is, as long as its samples are these: core's samplers hand other keys on."""

    done: int
    steps: int
    samples: torch.Tensor


def steps_done(latent: dict[str, Any]) -> StepsDone | None:
    """Return how far an unfinished clip is; None for a finished one, and for one whose samples another node changed.

    Samples that were only moved to another device or cast to another dtype are the same.
    """
    known = known_steps(latent)
    return known if known is not None and known.done < known.steps else None


def known_steps(latent: dict[str, Any]) -> StepsDone | None:
    """Return how far the clip of a LATENT is, also a finished one; None for samples of another node."""
    known, samples = latent.get(STEPS_DONE), latent["samples"]
    return known if known is not None and torch.equal(known.samples.to(samples), samples) else None


def finished_latent(samples: torch.Tensor, steps: int) -> dict[str, Any]:
    """Return the LATENT of a finished clip of so many steps, from its raw latents (1, 16, T, h, w)."""
    return {"samples": samples, STEPS_DONE: StepsDone(steps, steps, samples)}


def check_finished(latent: dict[str, Any]) -> None:
    """Raise RequestError for the LATENT of a clip between two steps, which decodes to grain."""
    if unfinished := steps_done(latent):
        raise RequestError(f"The latent is a clip of which {unfinished.done} of {unfinished.steps} steps are done; it "
                           "would decode to noise. Finish it first: connect it to a sampler whose stage is "
                           f"{LOW_ONLY!r}.")


def _samples(latent: dict[str, Any], shape: tuple[int, ...]) -> torch.Tensor:
    """Return the raw latents of a LATENT, float32 on the CPU. Raises RequestError for another shape than the clip's."""
    samples = latent["samples"]
    if tuple(samples.shape) != tuple(shape):
        raise RequestError(f"The latent has the shape {tuple(samples.shape)}; the clip of this first_frame has "
                           f"{tuple(shape)}. Give both the same size and num_frames.")
    if latent.get("noise_mask") is not None:
        raise RequestError("The latent has a noise mask, which this sampler does not read: it redraws the whole clip. "
                           "Connect the latent without Set Latent Noise Mask.")
    return samples.float().cpu()


def check_schedule(unfinished: Unfinished, sampling: Sampling) -> None:
    """Raise RequestError, naming the first difference, when a clip was begun with another schedule."""
    for name, value in (OFFICIAL_SIGMAS | schedule_of(sampling, "seed" in unfinished.schedule)).items():
        begun_with = (OFFICIAL_SIGMAS | unfinished.schedule)[name]
        if begun_with != value:
            begun_with, value = ("''" if text == "" else text for text in (begun_with, value))
            raise RequestError(f"The latent was begun with {name} {begun_with}; this sampler has {value}. "
                               f"Set {name} to {begun_with}.")


def start_of(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...], *, by_hook: bool,
             ) -> torch.Tensor | None:
    """Return raw latents to start from, (1, 16, T, h, w), or None for a clip from noise alone.

    by_hook: whether another input, such as a motion, decides what the clip starts from.
    Raises RequestError for a clip between two steps, and when denoise needs a latent that is not there.
    """
    if latent is None:
        if sampling.denoise < 1.0 and by_hook:
            raise RequestError(f"denoise is {sampling.denoise:g}, which changes a given clip, but the motion decides "
                               "what this one starts from. Set denoise to 1.")
        if sampling.denoise < 1.0:
            raise RequestError(f"denoise is {sampling.denoise:g}, which changes a given clip, but no latent is "
                               "connected. Connect one, such as the output of VAE Encode, or set denoise to 1.")
        if sampling.sigmas and sampling.sigmas[0] < NOISE_ALONE and not by_hook:
            raise RequestError(f"sigmas begins at {sampling.sigmas[0]:g}, where a given clip is to be changed, but no "
                               "latent is connected. Connect one, such as the output of VAE Encode, or begin at 1.")
        return None
    if unfinished := steps_done(latent):
        raise RequestError(f"The latent is a clip of which {unfinished.done} steps are done. Set stage to "
                           f"{LOW_ONLY!r} to finish it.")
    return _samples(latent, shape)


def leftover_of(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...]) -> torch.Tensor:
    """Return raw samples with leftover noise, (1, 16, T, h, w), for the low-noise stage to go on with.

    Raises RequestError when there are none, they were begun with another schedule, or the clip is finished.
    """
    if latent is None:
        raise RequestError(f"stage is {LOW_ONLY!r}, but no latent is connected. Connect the output of a sampler whose "
                           f"stage is {HIGH_ONLY!r}, or of Load Latent (Wan 2.2).")
    if UNFINISHED in latent:
        check_schedule(latent[UNFINISHED], sampling)
    if known := known_steps(latent):
        _check_steps(known, steps_of(sampling))
    return _samples(latent, shape)


def _check_steps(known: StepsDone, wanted: range) -> None:
    """Raise RequestError when a clip is finished, or was begun with other steps than go on from there."""
    if known.done == known.steps:
        raise RequestError(f"stage is {LOW_ONLY!r}, but the latent is a finished clip: there is no noise left to go on "
                           f"from. Connect the output of a sampler whose stage is {HIGH_ONLY!r}, or set stage to "
                           f"{BOTH!r}.")
    if (known.done, known.steps) != (wanted.start, wanted.stop):
        raise RequestError(f"The latent is a clip of which {known.done} of {known.steps} steps are done; this sampler "
                           f"goes on behind step {wanted.start} of {wanted.stop}. Give both the same "
                           "num_inference_steps, shift, boundary and sigmas.")


def state_of(latent: dict[str, Any] | None, sampling: Sampling, shape: tuple[int, ...], step: int, sigma: float,
             ) -> Unfinished:
    """Return the state to go on with at `step`, whose sigma is below 1, from a LATENT of the high-noise stage.

    Its own state counts only while the samples are still those it came with: a node in between may have changed them.
    From samples alone only a scheduler without a history can go on; RequestError says so for the others.
    """
    samples = leftover_of(latent, sampling, shape)
    known = latent.get(UNFINISHED)
    if known is not None and known.latents.shape == samples.shape and torch.allclose(
            samples, _leftover_samples(known.latents, sigma), atol=1e-5):
        return known
    if sampling.scheduler not in SOLVERS_WITHOUT_HISTORY:
        raise RequestError(f"{sampling.scheduler} goes on from its own earlier steps, and this latent does not hold "
                           "them: core's Save Latent keeps the samples alone, and other nodes change them. Keep the "
                           "first stage with Save Latent (Wan 2.2), or use euler for both stages.")
    return Unfinished(normalise(samples) * (1.0 - sigma), step, {}, schedule_of(sampling))
