"""Sample the stages of a clip on MODELs with ComfyUI's own samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ..request import HIGH, Sampling
from ..sampling.bridge import ModelFacts, RunStage, Stage
from ..sampling.hooks import NEGATIVE, POSITIVE, ModelInputs, Velocity
from ..sampling.sampler import noise_of_steps
from ..sampling.schedule import NUM_TRAIN_TIMESTEPS, step_count

SAMPLERS = {"euler": "euler", "unipc": "uni_pc", "dpmpp_2m": "dpmpp_2m", "lcm": "lcm"}
"""Scheduler of this pack -> ComfyUI's sampler of the same family."""
BRANCHES = (POSITIVE, NEGATIVE)
"""Branches by their numbers in ComfyUI's cond_or_uncond."""


def model_facts(model: Any) -> ModelFacts:
    """Return what is known of a MODEL."""
    transformer = model.model.diffusion_model
    patches = getattr(transformer, "patch_embedding", None)
    return ModelFacts(called=type(model.model).__name__,
                      latent_channels=model.get_model_object("latent_format").latent_channels,
                      in_channels=None if patches is None else patches.weight.shape[1],
                      image_projection=getattr(transformer, "img_emb", None) is not None,
                      text_dim=getattr(transformer, "text_dim", None))


def stage_runner(models: Mapping[str, Any], sampling: Sampling) -> RunStage:
    """Run stages on ComfyUI's own sampling, with everything that patches a MODEL in force.

    `models` are by HIGH and LOW. The sigmas are given, so that a MODEL's own shift does not matter: a flow model's
    timestep is sigma * 1000 (comfy/model_sampling.py, ModelSamplingDiscreteFlow.timestep).
    """
    total = step_count(sampling)
    show = latent_preview.prepare_callback(models[HIGH], total)

    def run(stage: Stage) -> tuple[torch.Tensor, torch.Tensor]:
        last: dict[str, torch.Tensor] = {}

        def on_step(step: int, clean: torch.Tensor, latents: torch.Tensor, steps_of_stage: int) -> None:
            last["clean"] = clean
            show(stage.steps.start + step, clean, latents, total)

        model = models[stage.expert]
        if stage.wrap is not None:
            model = model.clone()
            outer = model.model_options.get("model_function_wrapper")  # of another node: it stays in force
            model.set_model_unet_function_wrapper(_wrapper(stage, outer))
            if "sampler_calc_cond_batch_function" not in model.model_options:
                model.set_model_sampler_calc_cond_batch_function(_branch_by_branch)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(stage.positive, stage.negative)
        guider.set_cfg(stage.guidance_scale)
        latents = guider.sample(stage.noise, stage.latents, _sampler(sampling, stage), stage.sigmas, callback=on_step,
                                disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=sampling.seed)
        return latents.float().cpu(), last["clean"].float().cpu()

    return run


def _sampler(sampling: Sampling, stage: Stage) -> Any:
    """Return ComfyUI's sampler of a scheduler's family, for a stage.

    Its uni_pc solves by order min(3, steps - 1) (comfy/extra_samplers/uni_pc.py, sample_unipc): of one step it makes
    none at all. UniPC itself begins with a step of order 1, x0 + (sigma' / sigma) (x - x0) for a flow model: Euler's.
    Its lcm begins anew with each stage, and would draw the same noise again.
    """
    if stage.scheduler == "lcm":
        generator = noise_of_steps(tuple(stage.noise.shape), sampling.seed, stage.steps.start)
        return comfy.samplers.ksampler("lcm", {"noise_sampler": lambda sigma, sigma_next: torch.randn(
            stage.noise.shape, generator=generator).to(sigma.device)})
    one_step = stage.scheduler == "unipc" and len(stage.steps) == 1
    return comfy.samplers.sampler_object("euler" if one_step else SAMPLERS[stage.scheduler])


def _branch_by_branch(args: dict[str, Any]) -> list[torch.Tensor]:
    """Return the clean latents of each branch of guidance, run one after the other, the positive one first.

    ComfyUI runs both as one batch where it fits memory, and else the negative one first, which could not use again what
    the positive one of the step has shown. `_wrapper` takes them one by one in any case.
    """
    return [comfy.samplers.calc_cond_batch(args["model"], [None] * index + [cond], args["input"], args["sigma"],
                                           args["model_options"])[index] for index, cond in enumerate(args["conds"])]


Wrapper = Callable[[Callable[..., torch.Tensor], dict[str, Any]], torch.Tensor]
"""ComfyUI's model_function_wrapper: (apply_model, its arguments) -> clean latents."""


def _wrapper(stage: Stage, other: Wrapper | None) -> Wrapper:
    """Return a stage's wrap as ComfyUI's model_function_wrapper, round one that another node has set.

    It takes one branch of guidance at a time, the positive one first, as our own sampler does. ComfyUI's models give
    the clean latents x0 = x - sigma v, and take both branches as one batch or one after the other (comfy/samplers.py,
    calc_cond_batch).
    """
    wrapped: dict[int, Velocity] = {}  # by step: the wrap is asked once for both branches

    def wrapper(apply_model: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        chosen = args["cond_or_uncond"]
        found = {index: one_branch(apply_model, BRANCHES[chosen[index]], *_chunk(args, index, len(chosen)))
                 for index in sorted(range(len(chosen)), key=chosen.__getitem__)}
        return torch.cat([found[index] for index in range(len(chosen))])

    def one_branch(apply_model: Callable[..., torch.Tensor], branch: str, x: torch.Tensor, sigma: torch.Tensor,
                   arguments: dict[str, Any]) -> torch.Tensor:
        def velocity(latents: torch.Tensor, timestep: torch.Tensor, branch: str, inputs: ModelInputs) -> torch.Tensor:
            at = (timestep / NUM_TRAIN_TIMESTEPS).expand(latents.shape[0])
            c = {**inputs.arguments, "c_concat": inputs.condition}
            if other is None:
                clean = apply_model(latents, at, **c)
            else:
                clean = other(apply_model, {"input": latents, "timestep": at, "c": c,
                                            "cond_or_uncond": [BRANCHES.index(branch)]})
            return (latents - clean) / at[0]

        others = {name: value for name, value in arguments.items() if name != "c_concat"}
        step = stage.steps.start + int((stage.sigmas[:-1] - sigma[0].cpu()).abs().argmin())
        if step not in wrapped:
            wrapped.clear()
            wrapped[step] = stage.wrap(velocity, step)
        used = wrapped[step](x, sigma[0] * NUM_TRAIN_TIMESTEPS, branch, ModelInputs(arguments["c_concat"], others))
        return x - sigma[0] * used

    return wrapper


def _chunk(args: dict[str, Any], index: int, count: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Return latents, sigma and arguments of one branch of those that a model call takes as a batch."""

    def own(value: Any) -> Any:
        return value.chunk(count)[index] if isinstance(value, torch.Tensor) else value

    arguments = {name: own(value) for name, value in args["c"].items()}
    options = arguments.get("transformer_options")
    if options is not None:
        lists = {name: [options[name][index]] for name in ("cond_or_uncond", "uuids") if name in options}
        arguments["transformer_options"] = {**options, **lists}
    return own(args["input"]), own(args["timestep"]), arguments
