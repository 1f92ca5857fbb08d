"""The bridge on the real server: what it refuses, Stop, and clips that are finished in a later run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from devtools.paths import ROOT
from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, RejectedError, added, changed, clip_workflow, without

EXPERT = next((ROOT / "models" / "demo" / "diffusion_models").glob("*high_noise*.safetensors"))


@pytest.fixture
def bridge(clip: Workflow, models_of_comfyui: dict[str, str]) -> Workflow:
    """The shipped graph up to the latents, on core's MODELs."""
    graph = without(clip, "sampler", "decode", "save")
    for expert in ("high", "low"):
        graph = added(graph, expert, "UNETLoader", unet_name=models_of_comfyui[expert], weight_dtype="default")
    settings = {key: value for key, value in clip["sampler"]["inputs"].items() if key != "model"}
    graph = added(graph, "bridge", "Wan22BridgeSampler", model_high=["high", 0], model_low=["low", 0], **settings)
    return added(graph, "latents", "SaveLatent", samples=["bridge", 0], filename_prefix="latents/bridge")


def altered_expert(comfy: ComfyClient, name: str, key: str, columns: int, **config: int) -> str:
    """An expert among the server's models, of which one weight has fewer input channels."""
    with safe_open(EXPERT, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    (found,) = (k for k in tensors if k.endswith(key))
    tensors[found] = tensors[found][:, :columns].contiguous()
    stated = json.loads(metadata["config"])
    stated["transformer"].update(config)
    path = comfy.server.base / "models" / "diffusion_models" / name
    save_file(tensors, path, {**metadata, "config": json.dumps(stated)})
    return name


def failing(comfy: ComfyClient, graph: Workflow) -> str:
    run = comfy.run(graph)
    assert run.outcome == "execution_error" and run.error["node_id"] == "bridge"
    assert run.progress("bridge") == [], "it has to be told before sampling"
    return run.error["exception_message"].strip()


def test_a_model_of_another_kind_is_refused(comfy: ComfyClient, bridge: Workflow):
    name = altered_expert(comfy, "text_to_video.safetensors", "patch_embedding.weight", 16)
    assert failing(comfy, changed(bridge, "low", unet_name=name)) == (
        "The low-noise MODEL is no Wan 2.2 I2V-A14B expert, which has 16 latent channels, 36 input channels and no "
        "image projection: ComfyUI takes it for WAN21 with 16, 16 and none. Load wan2.2_i2v_low_noise_14B.")


def test_text_of_another_encoder_is_refused(comfy: ComfyClient, bridge: Workflow):
    name = altered_expert(comfy, "other_text.safetensors", "text_embedding.0.weight", 64, text_dim=64)
    assert failing(comfy, changed(bridge, "high", unet_name=name)) == (
        "The positive text embeddings are 128 wide, the high-noise MODEL reads 64. Use the text encoder that belongs "
        "to it: umt5_xxl for Wan 2.2.")


def test_settings_out_of_range_are_refused(comfy: ComfyClient, bridge: Workflow):
    with pytest.raises(RejectedError, match="num_inference_steps is 0; choose 1 to 100"):
        comfy.submit(changed(bridge, "bridge", num_inference_steps=0))


def test_what_saves_passes_is_used(comfy: ComfyClient, bridge: Workflow):
    plain = comfy.latents(comfy.finish(bridge), "latents")
    for settings in ({"negative_pass_every": 2}, {"sigma_schedule": "lightx2v 4 steps"}):
        other = comfy.latents(comfy.finish(changed(bridge, "bridge", **settings)), "latents")
        assert not torch.allclose(torch.from_numpy(other), torch.from_numpy(plain)), settings


def test_stop_while_the_bridge_samples(comfy: ComfyClient, bridge: Workflow):
    graph = changed(changed(bridge, "bridge", num_inference_steps=50, seed=77), "frame", num_frames=33)
    prompt_id = comfy.submit(graph)
    steps = 0

    def stop(event) -> None:
        nonlocal steps
        if event.kind == "progress" and event.data["node"] == "bridge":
            steps += 1
            if steps == 2:
                comfy.cancel(prompt_id)

    run = comfy.follow(prompt_id, stop)
    assert run.outcome == "execution_interrupted"
    assert comfy.job(prompt_id)["status"] == "cancelled"
    assert steps < 25


def test_a_run_without_previews(comfy: ComfyClient, picture: str):
    """By the canvas's own setting, which goes with the prompt."""
    for method, count in (("none", 0), ("latent2rgb", 4)):
        body = {"prompt": changed(clip_workflow(picture, steps=4), "sampler", seed=count), "client_id": comfy.client_id,
                "extra_data": {"preview_method": method}}
        run = comfy.follow(comfy.post("/prompt", body)["prompt_id"])
        assert len(run.previews("sampler")) == count and run.progress("sampler")[-1] == (4, 4)


def test_the_bridge_shows_cores_previews(comfy: ComfyClient, bridge: Workflow):
    body = {"prompt": changed(bridge, "bridge", seed=5), "client_id": comfy.client_id,
            "extra_data": {"preview_method": "latent2rgb"}}
    run = comfy.follow(comfy.post("/prompt", body)["prompt_id"])
    assert len(run.previews("bridge")) == 10
    assert run.progress("bridge") == [(step, 10) for step in range(1, 11)]


def saved_file(comfy: ComfyClient, run, node: str) -> str:
    (entry,) = comfy.history(run.prompt_id)["outputs"][node]["latents"]
    return entry["filename"]


def sampler_graph(clip: Workflow, **settings: object) -> Workflow:
    graph = changed(without(clip, "decode", "save"), "sampler", **settings)
    return added(graph, "latents", "SaveLatent", samples=["sampler", 0], filename_prefix="latents/sampler")


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_a_clip_is_finished_in_a_later_run(comfy: ComfyClient, clip: Workflow, scheduler: str):
    graph = sampler_graph(clip, scheduler=scheduler)
    whole = comfy.latents(comfy.finish(graph), "latents")
    first = added(changed(graph, "sampler", stage="high-noise only"), "keep", "Wan22SaveLatent", latent=["sampler", 0],
                  name="half")
    run = comfy.finish(first)
    assert run.texts("sampler")[0].startswith("steps 1-4 high-noise, 5-10 low-noise; this run takes 1-4\n")
    assert comfy.latents(run, "latents").tobytes() != whole.tobytes()
    name = saved_file(comfy, run, "keep")
    comfy.forget()
    later = added(changed(graph, "sampler", stage="low-noise only", latent=["kept", 0]), "kept", "Wan22LoadLatent",
                  file=name)
    run = comfy.finish(later)
    assert comfy.latents(run, "latents").tobytes() == whole.tobytes()
    assert run.progress("sampler") == [(step, 10) for step in range(5, 11)]


def test_the_latents_file_lies_where_load_lists_it(comfy: ComfyClient, clip: Workflow):
    graph = added(sampler_graph(clip), "keep", "Wan22SaveLatent", latent=["sampler", 0], name="listed")
    name = saved_file(comfy, comfy.finish(graph), "keep")
    assert Path(comfy.server.base, "output", "wan22", "latents", name).is_file()
    options = comfy.get("/object_info/Wan22LoadLatent")["Wan22LoadLatent"]["input"]["required"]["file"]
    assert name in json.dumps(options)
    with pytest.raises(RejectedError, match="name is 'a/b'; give a plain name without folders"):
        comfy.submit(changed(graph, "keep", name="a/b"))


def test_a_stage_in_the_bridge_can_be_kept_by_core(comfy: ComfyClient, bridge: Workflow):
    whole = comfy.latents(comfy.finish(bridge), "latents")
    half = comfy.finish(changed(bridge, "bridge", stage="high-noise only"))
    (entry,) = comfy.history(half.prompt_id)["outputs"]["latents"]["latents"]
    source = Path(comfy.server.base, "output", entry["subfolder"], entry["filename"])
    target = Path(comfy.server.base, "input", "half_of_bridge.latent")
    target.write_bytes(source.read_bytes())
    later = added(changed(bridge, "bridge", stage="low-noise only", latent=["kept", 0]), "kept", "LoadLatent",
                  latent=target.name)
    finished = comfy.latents(comfy.finish(later), "latents")
    assert finished.tobytes() == whole.tobytes()


def test_few_steps_are_commented_on(comfy: ComfyClient, clip: Workflow):
    run = comfy.finish(sampler_graph(clip, num_inference_steps=4))
    (said,) = run.texts("sampler")
    assert said.startswith("steps 1-2 high-noise, 3-4 low-noise. Only 4 steps, 2 + 2, at guidance 5 and 5")
    quiet = comfy.finish(sampler_graph(clip, num_inference_steps=4, guidance_scale=1.0))
    assert quiet.texts("sampler")[0].startswith("steps 1-2 high-noise, 3-4 low-noise\n")
    assert torch.isfinite(torch.from_numpy(comfy.latents(quiet, "latents"))).all()
