"""Our sampler against ComfyUI's own: the same weight files in core's loader, conditioning and two KSamplers.

Two implementations of everything (transformer, VAE, schedule, guidance, the hand-over between the experts) must agree
on the latents, and the comparison must be sharp enough to notice one step that goes to the wrong expert.
"""

from __future__ import annotations

import numpy as np
import pytest

from devtools.workflow import Workflow
from tests.comfy_client import ComfyClient, added, changed, clip_workflow, without

STEPS, SHIFT, GUIDANCE, SEED = 10, 5.0, 5.0, 3
HIGH_STEPS = 4
"""Steps that start at a noise level of 0.9 or more: with shift 5 they start at 1, .978, .952, .921, .882 and so on."""
TOLERANCE = 1e-4
"""In standard deviations of the latents. In float32 about 3e-6 was measured, and 0.15 for one step gone wrong."""


def by_core(graph: Workflow, models: dict[str, str], high_steps: int) -> Workflow:
    """The graph with core's own way to the same clip beside ours, from files in the model folders."""
    for expert in ("high", "low"):
        graph = added(graph, f"{expert} file", "UNETLoader", unet_name=models[expert], weight_dtype="default")
        graph = added(graph, expert, "ModelSamplingSD3", model=[f"{expert} file", 0], shift=SHIFT)
    graph = added(graph, "core vae", "VAELoader", vae_name=models["vae"])
    size = {"width": 96, "height": 64, "length": 9, "batch_size": 1}
    graph = added(graph, "start", "WanImageToVideo", positive=["prompt", 0], negative=["prompt", 1],
                  vae=["core vae", 0], start_image=["picture", 0], **size)
    shared = {"noise_seed": SEED, "steps": STEPS, "cfg": GUIDANCE, "sampler_name": "euler", "scheduler": "simple",
              "positive": ["start", 0], "negative": ["start", 1]}
    graph = added(graph, "first steps", "KSamplerAdvanced", model=["high", 0], add_noise="enable",
                  latent_image=["start", 2], start_at_step=0, end_at_step=high_steps,
                  return_with_leftover_noise="enable", **shared)
    graph = added(graph, "last steps", "KSamplerAdvanced", model=["low", 0], add_noise="disable",
                  latent_image=["first steps", 0], start_at_step=high_steps, end_at_step=10000,
                  return_with_leftover_noise="disable", **shared)
    return added(graph, "core latents", "SaveLatent", samples=["last steps", 0], filename_prefix="latents/core")


@pytest.fixture
def ours(picture: str) -> Workflow:
    """Our graph up to the latents; the picture has the clip's size, so that nobody's way of scaling matters."""
    graph = without(clip_workflow(picture, num_frames=9, steps=STEPS), "decode", "save")
    graph = changed(graph, "prompt", prompt="everything turns red", negative_prompt="nothing moves")
    graph = changed(graph, "sampler", seed=SEED, guidance_scale=GUIDANCE, scheduler="euler", shift=SHIFT, boundary=0.9)
    return added(graph, "latents", "SaveLatent", samples=["sampler", 0], filename_prefix="latents/ours")


def distance(comfy: ComfyClient, graph: Workflow) -> float:
    """Largest difference between our latents and core's, in standard deviations of the latents."""
    run = comfy.finish(graph)
    ours, cores = comfy.latents(run, "latents"), comfy.latents(run, "core latents")
    assert ours.shape == cores.shape == (1, 16, 3, 8, 12)
    return float(np.abs(ours - cores).max() / ours.std())


def test_core_agrees(comfy: ComfyClient, ours: Workflow, models_of_comfyui: dict[str, str]):
    assert distance(comfy, by_core(ours, models_of_comfyui, HIGH_STEPS)) < TOLERANCE


def test_core_agrees_when_it_encodes_with_our_vae(comfy: ComfyClient, ours: Workflow,
                                                  models_of_comfyui: dict[str, str]):
    graph = by_core(ours, models_of_comfyui, HIGH_STEPS)
    assert distance(comfy, changed(graph, "start", vae=["load", 2])) < TOLERANCE


@pytest.mark.parametrize("wrong", [HIGH_STEPS - 1, HIGH_STEPS + 1])
def test_one_step_with_the_other_expert_would_be_noticed(comfy: ComfyClient, ours: Workflow,
                                                         models_of_comfyui: dict[str, str], wrong: int):
    assert distance(comfy, by_core(ours, models_of_comfyui, wrong)) > 10 * TOLERANCE


def test_files_of_the_model_folders_give_what_the_bundled_ones_give(comfy: ComfyClient, ours: Workflow,
                                                                    models_of_comfyui: dict[str, str]):
    bundled = comfy.latents(comfy.finish(ours), "latents")
    models = models_of_comfyui
    named = changed(ours, "load", high_noise_expert=models["high"], low_noise_expert=models["low"],
                    text_encoder=models["text"], vae=models["vae"])
    assert comfy.latents(comfy.finish(named), "latents").tobytes() == bundled.tobytes()
    swapped = changed(named, "load", high_noise_expert=models["low"], low_noise_expert=models["high"])
    assert not np.allclose(comfy.latents(comfy.finish(swapped), "latents"), bundled)
