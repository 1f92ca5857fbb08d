"""Our samplers against ComfyUI's own: the same weight files in core's loader, conditioning and two KSamplers.

Two implementations of everything (transformer, VAE, schedule, guidance, the hand-over between the experts) must agree
on the latents, and the comparison must be sharp enough to notice one step that goes to the wrong expert.
"""

from __future__ import annotations

import numpy as np
import pytest

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, added, changed, clip_workflow, without

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


def with_bridge(graph: Workflow, high: str = "high", low: str = "low", **settings: object) -> Workflow:
    """The graph with the bridge beside ours, on core's MODELs and with our sampler's settings where none are given."""
    shared = {name: value for name, value in graph["sampler"]["inputs"].items() if name != "model"}
    graph = added(graph, "bridge", "Wan22BridgeSampler", model_high=[high, 0], model_low=[low, 0],
                  **{**shared, **settings})
    return added(graph, "bridge latents", "SaveLatent", samples=["bridge", 0], filename_prefix="latents/bridge")


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two clips' latents, in standard deviations of the first."""
    assert one.shape == other.shape == (1, 16, 3, 8, 12)
    return float(np.abs(one - other).max() / one.std())


def distance(comfy: ComfyClient, graph: Workflow) -> float:
    """Largest difference between our latents and core's, in standard deviations of the latents."""
    run = comfy.finish(graph)
    return apart(comfy.latents(run, "latents"), comfy.latents(run, "core latents"))


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


def test_the_bridge_agrees_whatever_shift_its_models_have(comfy: ComfyClient, ours: Workflow,
                                                          models_of_comfyui: dict[str, str]):
    graph = by_core(ours, models_of_comfyui, HIGH_STEPS)
    run = comfy.finish(with_bridge(graph))
    latents = comfy.latents(run, "bridge latents")
    assert apart(latents, comfy.latents(run, "core latents")) < TOLERANCE
    assert apart(latents, comfy.latents(run, "latents")) < TOLERANCE
    progress = run.progress("bridge")  # ComfyUI leaves out messages that follow closely and carry no preview
    assert progress == sorted(progress) and progress[0] == (1, STEPS) and progress[-1] == (STEPS, STEPS)
    assert run.texts("bridge") == ["steps 1-4 high-noise, 5-10 low-noise"]
    graph = added(graph, "other shift", "ModelSamplingSD3", model=["high file", 0], shift=2.0)
    other = comfy.latents(comfy.finish(with_bridge(graph, high="other shift", low="low file")), "bridge latents")
    assert other.tobytes() == latents.tobytes()
    swapped = comfy.latents(comfy.finish(with_bridge(graph, high="low", low="high")), "bridge latents")
    assert apart(swapped, latents) > 10 * TOLERANCE


def test_guidance_of_each_stage_reaches_both_samplers(comfy: ComfyClient, ours: Workflow,
                                                      models_of_comfyui: dict[str, str]):
    for high, low in ((4.0, 1.0), (1.0, 4.0)):
        graph = changed(ours, "sampler", guidance_scale=high, guidance_scale_2=low)
        graph = with_bridge(by_core(graph, models_of_comfyui, HIGH_STEPS))
        graph = changed(changed(graph, "first steps", cfg=high), "last steps", cfg=low)
        run = comfy.finish(graph)
        cores = comfy.latents(run, "core latents")
        assert apart(cores, comfy.latents(run, "latents")) < TOLERANCE
        assert apart(cores, comfy.latents(run, "bridge latents")) < TOLERANCE


def test_core_agrees_on_a_last_picture(comfy: ComfyClient, ours: Workflow, models_of_comfyui: dict[str, str]):
    graph = added(by_core(ours, models_of_comfyui, HIGH_STEPS), "end", "ImageInvert", image=["picture", 0])
    graph = changed(graph, "frame", last_image=["end", 0])
    graph["start"] = {"class_type": "WanFirstLastFrameToVideo",
                      "inputs": {**graph["start"]["inputs"], "end_image": ["end", 0]}}
    run = comfy.finish(with_bridge(graph))
    cores = comfy.latents(run, "core latents")
    assert apart(cores, comfy.latents(run, "latents")) < TOLERANCE
    assert apart(cores, comfy.latents(run, "bridge latents")) < TOLERANCE


def test_core_agrees_on_denoise(comfy: ComfyClient, ours: Workflow, models_of_comfyui: dict[str, str]):
    """16 steps at 0.8 are the last 16 of 20; eight of the 20 start at a noise level of 0.9 or more.

    20, since core's "simple" rounds to a table of 1000 sigmas and so is exact only for divisors of 1000.
    """
    graph = added(by_core(ours, models_of_comfyui, 8), "still", "RepeatImageBatch", image=["picture", 0], amount=9)
    graph = added(graph, "given", "VAEEncode", pixels=["still", 0], vae=["core vae", 0])
    graph = changed(graph, "first steps", steps=20, start_at_step=4, latent_image=["given", 0])
    graph = changed(graph, "last steps", steps=20)
    run = comfy.finish(with_bridge(changed(graph, "sampler", num_inference_steps=16, denoise=0.8, latent=["given", 0])))
    cores = comfy.latents(run, "core latents")
    assert apart(cores, comfy.latents(run, "latents")) < TOLERANCE
    assert apart(cores, comfy.latents(run, "bridge latents")) < TOLERANCE


def test_core_and_we_finish_each_others_clips(comfy: ComfyClient, ours: Workflow, models_of_comfyui: dict[str, str]):
    graph = by_core(ours, models_of_comfyui, HIGH_STEPS)
    graph = added(graph, "half", "Wan22Sampler", **{**graph["sampler"]["inputs"], "stage": "high-noise only"})
    graph = added(graph, "core finishes", "KSamplerAdvanced",
                  **{**graph["last steps"]["inputs"], "latent_image": ["half", 0]})
    second = {"stage": "low-noise only", "latent": ["first steps", 0]}
    graph = with_bridge(added(graph, "we finish", "Wan22Sampler", **{**graph["sampler"]["inputs"], **second}),
                        stage="low-noise only", latent=["half", 0])
    for node in ("core finishes", "we finish"):
        graph = added(graph, f"{node} latents", "SaveLatent", samples=[node, 0], filename_prefix="latents/finished")
    run = comfy.finish(graph)
    whole = comfy.latents(run, "core latents")
    for node in ("core finishes", "we finish", "bridge"):
        assert apart(whole, comfy.latents(run, f"{node} latents")) < TOLERANCE, node


def test_the_bridge_samples_with_cores_solvers(comfy: ComfyClient, ours: Workflow, models_of_comfyui: dict[str, str]):
    graph = by_core(ours, models_of_comfyui, HIGH_STEPS)
    graph = changed(changed(graph, "first steps", sampler_name="dpmpp_2m"), "last steps", sampler_name="dpmpp_2m")
    run = comfy.finish(with_bridge(graph, scheduler="dpmpp_2m"))
    cores = comfy.latents(run, "core latents")
    assert apart(cores, comfy.latents(run, "bridge latents")) < TOLERANCE
    assert apart(cores, comfy.latents(run, "latents")) > 10 * TOLERANCE, "ours still is euler"
    graph = by_core(changed(ours, "sampler", scheduler="unipc"), models_of_comfyui, HIGH_STEPS)
    run = comfy.finish(with_bridge(graph))
    ours_unipc, bridged, euler = (comfy.latents(run, f"{name}latents") for name in ("", "bridge ", "core "))
    assert 10 * TOLERANCE < apart(ours_unipc, bridged) < 0.1, "another formulation of the same solver"
    assert apart(bridged, euler) > 10 * TOLERANCE
