"""A clip made by the real server: what a client hears meanwhile, what it gets, what is not made twice."""

from __future__ import annotations

import io
import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Run, added, changed, clip_workflow, sample_picture, without

STEPS, FRAMES = 10, 5
CANVAS = {"id": "drawn", "nodes": []}


@pytest.fixture(scope="module")
def made(comfy: ComfyClient, picture: str) -> Run:
    """A clip made with nothing in the caches."""
    comfy.forget()
    run = comfy.run(clip_workflow(picture, num_frames=FRAMES, steps=STEPS), canvas=CANVAS)
    assert run.outcome == "execution_success", run.events[-1]
    return run


def container_of(mp4: bytes) -> av.container.InputContainer:
    return av.open(io.BytesIO(mp4))


def test_every_node_runs_once_and_after_what_it_needs(made: Run):
    assert made.cached == set()
    assert sorted(made.executed) == sorted(["picture", "load", "prompt", "frame", "sampler", "decode", "save"])
    at = {node: made.executed.index(node) for node in made.executed}
    assert at["load"] < min(at["prompt"], at["frame"])
    assert max(at["prompt"], at["frame"], at["picture"]) < at["sampler"] < at["decode"] < at["save"]


def test_the_sampler_counts_its_steps(made: Run):
    assert made.progress("sampler") == [(step, STEPS) for step in range(1, STEPS + 1)]


def test_decode_and_save_count_frames(made: Run):
    assert made.progress("decode")[-1] == made.progress("save")[-1] == (FRAMES, FRAMES)


def test_each_step_shows_a_preview(made: Run):
    previews = [Image.open(io.BytesIO(data)) for data in made.previews("sampler")]
    assert len(previews) == STEPS
    for preview in previews:
        preview.load()
        assert preview.format == "JPEG"
        # Begin, middle and end of the clip, 96x64 each, side by side; scaled to fit the node.
        assert 128 <= preview.width <= 512
        assert preview.width / preview.height == pytest.approx(3 * 96 / 64, rel=0.03)
    first, last = (np.asarray(previews[index], np.float32) for index in (0, -1))
    assert np.abs(first - last).mean() > 1, "the preview does not follow the clip"


def test_the_node_says_which_expert_takes_which_step(made: Run):
    # Shift 5 over 10 steps: the first four start at a noise level of 0.9 or more.
    (said,) = made.texts("sampler")
    assert re.fullmatch(r"steps 1-4 high-noise, 5-10 low-noise\nneeds 10\.\d MB \+ [\d.]+ kB, [\d.]+ [MG]B free",
                        said), said


def test_the_run_reads_completed(comfy: ComfyClient, made: Run):
    assert comfy.job(made.prompt_id)["status"] == "completed"
    status = comfy.history(made.prompt_id)["status"]
    assert (status["status_str"], status["completed"]) == ("success", True)


def test_the_canvas_gets_the_file_as_a_video(comfy: ComfyClient, made: Run):
    output = comfy.history(made.prompt_id)["outputs"]["save"]
    (entry,) = output["images"]
    assert output["animated"] == [True]
    assert re.fullmatch(r"demo_\d{5}_\.mp4", entry["filename"])
    assert (entry["subfolder"], entry["type"]) == ("wan22", "output")


def test_the_file_is_an_mp4_of_the_clip(comfy: ComfyClient, made: Run):
    (mp4,) = comfy.files(made, "save")
    assert mp4.index(b"moov") < mp4.index(b"mdat"), "a browser could not play it while it loads"
    with container_of(mp4) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (96, 64, 16)
        assert sum(1 for _ in container.decode(stream)) == FRAMES


def test_the_file_holds_the_decoded_frames(comfy: ComfyClient, clip: Workflow):
    graph = added(clip, "pictures", "SaveImage", images=["decode", 0], filename_prefix="frames")
    graph = changed(graph, "save", crf=0.0)
    run = comfy.finish(graph)
    frames = comfy.frames(run, "pictures").astype(np.float32)
    (mp4,) = comfy.files(run, "save")
    with container_of(mp4) as container:
        stored = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    # Colour is stored at half the resolution, so single pixels differ; a wrong matrix or range would shift them all.
    assert np.abs(stored.mean((1, 2)) - frames.mean((1, 2))).max() < 2


def test_the_file_brings_the_graph_back_and_says_what_it_is(comfy: ComfyClient, made: Run, picture: str):
    (mp4,) = comfy.files(made, "save")
    with container_of(mp4) as container:
        metadata = container.metadata
    assert json.loads(metadata["workflow"]) == CANVAS
    assert json.loads(metadata["prompt"])["picture"]["inputs"]["image"] == picture
    assert "AI-generated" in metadata["comment"]
    assert metadata["digital_source_type"].endswith("/trainedAlgorithmicMedia")


def test_the_mark_can_be_left_out(comfy: ComfyClient, clip: Workflow):
    run = comfy.finish(changed(clip, "save", mark_ai_generated=False))
    (mp4,) = comfy.files(run, "save")
    with container_of(mp4) as container:
        metadata = container.metadata
    assert "prompt" in metadata
    assert "comment" not in metadata and "digital_source_type" not in metadata


def test_a_second_clip_gets_a_name_of_its_own(comfy: ComfyClient, clip: Workflow):
    runs = [comfy.finish(changed(clip, "save", crf=crf, filename_prefix="numbered/clip")) for crf in (20.0, 21.0)]
    names = [comfy.history(run.prompt_id)["outputs"]["save"]["images"][0]["filename"] for run in runs]
    assert names == ["clip_00001_.mp4", "clip_00002_.mp4"]


def test_the_same_again_costs_nothing(comfy: ComfyClient, clip: Workflow):
    comfy.finish(clip)
    again = comfy.finish(clip)
    assert again.executed == []
    assert again.cached == set(clip)


def test_a_new_seed_samples_decodes_and_saves_only(comfy: ComfyClient, clip: Workflow):
    comfy.finish(clip)
    run = comfy.finish(changed(clip, "sampler", seed=1))
    assert run.executed == ["sampler", "decode", "save"]
    assert run.cached == {"picture", "load", "prompt", "frame"}


def test_a_new_prompt_leaves_the_picture_alone(comfy: ComfyClient, clip: Workflow):
    comfy.finish(clip)
    run = comfy.finish(changed(clip, "prompt", prompt="the camera zooms in"))
    assert run.executed == ["prompt", "sampler", "decode", "save"]


def latent_graph(clip: Workflow) -> Workflow:
    """The graph up to the sampler, whose latents core's own node saves."""
    return added(without(clip, "decode", "save"), "latents", "SaveLatent", samples=["sampler", 0],
                 filename_prefix="latents/clip")


@pytest.mark.parametrize("scheduler", ["euler", "unipc", "dpmpp_2m"])
def test_a_seed_gives_the_same_latents_every_time_and_no_other_does(comfy: ComfyClient, clip: Workflow,
                                                                    scheduler: str):
    graph = changed(latent_graph(clip), "sampler", scheduler=scheduler)
    latents = []
    for seed in (7, 7, 8):
        comfy.forget()
        run = comfy.finish(changed(graph, "sampler", seed=seed))
        assert set(run.executed) == set(graph), "nothing may come out of a cache here"
        latents.append(comfy.latents(run, "latents"))
    assert latents[0].shape == (1, 16, 2, 8, 12) and np.isfinite(latents[0]).all()
    assert latents[0].tobytes() == latents[1].tobytes()
    assert np.abs(latents[0] - latents[2]).max() > 0.1


def test_each_setting_of_the_sampler_matters(comfy: ComfyClient, clip: Workflow):
    graph = latent_graph(clip)
    plain = comfy.latents(comfy.finish(graph), "latents")
    settings = {"guidance_scale": 3.0, "guidance_scale_2": 3.0, "scheduler": "unipc", "shift": 3.0, "boundary": 0.5,
                "num_inference_steps": 11, "sigma_schedule": "lightx2v 4 steps", "negative_pass_every": 2}
    same = [name for name, value in settings.items()
            if np.allclose(comfy.latents(comfy.finish(changed(graph, "sampler", **{name: value})), "latents"), plain)]
    assert same == []


def test_sigmas_are_typed_or_come_from_another_node(comfy: ComfyClient, clip: Workflow):
    graph = changed(latent_graph(clip), "sampler", scheduler="lcm", guidance_scale=1.0)
    typed = comfy.finish(changed(graph, "sampler", sigmas="1, .95 .9 .5"))
    assert typed.texts("sampler")[0].startswith("steps 1-3 high-noise, 4-4 low-noise. Only 4 steps, 3 + 1")
    assert typed.progress("sampler") == [(step, 4) for step in range(1, 5)]
    graph = added(graph, "list", "ManualSigmas", sigmas="1, .95, .9, .5, 0")
    linked = comfy.finish(changed(graph, "sampler", sigmas=["list", 0]))
    assert comfy.latents(linked, "latents").tobytes() == comfy.latents(typed, "latents").tobytes()
    run = comfy.run(changed(changed(graph, "list", sigmas="1, .95, .9"), "sampler", sigmas=["list", 0]))
    assert "The SIGMAS in sigmas end at 0.9; a whole list ends at 0." in run.error["exception_message"]


@pytest.mark.parametrize("node", ["Wan22Sampler", "Wan22BridgeSampler"])
def test_new_widgets_come_last(comfy: ComfyClient, node: str):
    """A saved workflow knows the values of widgets by their place alone."""
    order = comfy.get(f"/object_info/{node}")[node]["input_order"]
    assert order["required"][-3:] == ["seed", "num_inference_steps", "guidance_scale"]
    widgets = [name for name in order["optional"] if name not in ("loras", "latent", "motion")]
    assert widgets[:6] == ["guidance_scale_2", "scheduler", "shift", "boundary", "denoise", "stage"]
    new = ["sigma_schedule", "sigmas", "negative_pass_every"]
    assert widgets[6:] == (["batched_guidance", *new] if node == "Wan22Sampler" else new)


def test_guidance_scale_2_of_zero_is_guidance_scale(comfy: ComfyClient, clip: Workflow):
    graph = changed(latent_graph(clip), "sampler", guidance_scale=3.0)
    found = [comfy.latents(comfy.finish(changed(graph, "sampler", guidance_scale_2=value)), "latents")
             for value in (0.0, 3.0)]
    assert found[0].tobytes() == found[1].tobytes()


def test_batched_guidance_gives_the_same_clip(comfy: ComfyClient, clip: Workflow):
    graph = latent_graph(clip)
    two, one = (comfy.latents(comfy.finish(changed(graph, "sampler", batched_guidance=batched)), "latents")
                for batched in (False, True))
    assert 0 < np.abs(two - one).max() < 1e-4 * two.std()


def test_the_boundary_decides_who_takes_a_step(comfy: ComfyClient, clip: Workflow):
    graph = latent_graph(clip)
    said = [comfy.finish(changed(graph, "sampler", boundary=boundary)).texts("sampler") for boundary in (0.0, 0.95)]
    assert [[text.partition("\n")[0] for text in texts] for texts in said] == [
        ["steps 1-10 high-noise. All steps go to the high-noise expert and none to the low-noise one; Wan 2.2 "
         "image-to-video is made for a boundary of 0.9 and a shift of 5."],
        ["steps 1-3 high-noise, 4-10 low-noise"]]


def test_linked_values_work_as_typed_ones(comfy: ComfyClient, clip: Workflow):
    graph = latent_graph(clip)
    typed = comfy.latents(comfy.finish(graph), "latents")
    sources = {"frames": 5, "steps": 10, "width": 96, "height": 64}
    for name, value in sources.items():
        graph = added(graph, name, "PrimitiveInt", value=value)
    graph = changed(graph, "frame", **{"num_frames": ["frames", 0], "resolution.width": ["width", 0],
                                       "resolution.height": ["height", 0]})
    linked = comfy.latents(comfy.finish(changed(graph, "sampler", num_inference_steps=["steps", 0])), "latents")
    assert linked.tobytes() == typed.tobytes()


def test_a_picture_of_another_shape_is_scaled_and_cut(comfy: ComfyClient, clip: Workflow):
    name = comfy.upload("tall", sample_picture(70, 200))
    run = comfy.finish(changed(clip, "picture", image=name))
    (mp4,) = comfy.files(run, "save")
    with container_of(mp4) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 64)


def test_cores_vae_decode_takes_our_vae(comfy: ComfyClient, clip: Workflow):
    graph = without(clip, "save")
    graph = added(graph, "core", "VAEDecode", samples=["sampler", 0], vae=["load", 2])
    for source in ("decode", "core"):
        graph = added(graph, f"{source} pictures", "SaveImage", images=[source, 0], filename_prefix=source)
    run = comfy.finish(graph)
    ours, cores = (comfy.frames(run, f"{source} pictures") for source in ("decode", "core"))
    assert ours.shape == (FRAMES, 64, 96, 3) and ours.std() > 1
    assert np.array_equal(ours, cores)


def test_cores_text_encode_takes_our_clip(comfy: ComfyClient, clip: Workflow):
    graph = changed(latent_graph(clip), "prompt", negative_prompt="nothing moves")
    for name, text in (("core positive", graph["prompt"]["inputs"]["prompt"]), ("core negative", "nothing moves")):
        graph = added(graph, name, "CLIPTextEncode", clip=["load", 1], text=text)
    other = {**graph["sampler"]["inputs"], "positive": ["core positive", 0], "negative": ["core negative", 0]}
    graph = added(graph, "core sampler", "Wan22Sampler", **other)
    graph = added(graph, "core latents", "SaveLatent", samples=["core sampler", 0], filename_prefix="latents/core")
    run = comfy.finish(graph)
    assert comfy.latents(run, "latents").tobytes() == comfy.latents(run, "core latents").tobytes()
    swapped = changed(graph, "core sampler", positive=["core negative", 0], negative=["core positive", 0])
    assert not np.allclose(comfy.latents(comfy.finish(swapped), "core latents"), comfy.latents(run, "latents"))


def test_cores_vae_works_in_our_nodes(comfy: ComfyClient, clip: Workflow, models_of_comfyui: dict[str, str]):
    graph = added(without(clip, "save"), "core vae", "VAELoader", vae_name=models_of_comfyui["vae"])
    graph = added(graph, "core frame", "Wan22FirstFrame", **{**graph["frame"]["inputs"], "vae": ["core vae", 0]})
    graph = added(graph, "core sampler", "Wan22Sampler",
                  **{**graph["sampler"]["inputs"], "first_frame": ["core frame", 0]})
    graph = added(graph, "core decode", "Wan22Decode", vae=["core vae", 0], latent=["sampler", 0])
    for source in ("decode", "core decode"):
        graph = added(graph, f"{source} pictures", "SaveImage", images=[source, 0], filename_prefix="vae")
    for source in ("sampler", "core sampler"):
        graph = added(graph, f"{source} latents", "SaveLatent", samples=[source, 0], filename_prefix="latents/vae")
    run = comfy.finish(graph)
    ours, cores = (comfy.frames(run, f"{source} pictures").astype(int) for source in ("decode", "core decode"))
    assert ours.shape == cores.shape == (FRAMES, 64, 96, 3)
    assert np.abs(ours - cores).max() <= 1
    ours, cores = (comfy.latents(run, f"{source} latents") for source in ("sampler", "core sampler"))
    assert np.abs(ours - cores).max() < 1e-4 * ours.std()


def test_another_attention_makes_the_same_clip_and_an_override_has_to_be_one(comfy: ComfyClient, clip: Workflow,
                                                                             models_of_comfyui: dict[str, str]):
    graph = added(latent_graph(clip), "attention", "Wan22Attention", model=["load", 0], attention="split")
    other = {**graph["sampler"]["inputs"], "model": ["attention", 0]}
    graph = added(graph, "other sampler", "Wan22Sampler", **other)
    graph = added(graph, "other latents", "SaveLatent", samples=["other sampler", 0], filename_prefix="latents/other")
    run = comfy.finish(graph)
    usual, split = (comfy.latents(run, name) for name in ("latents", "other latents"))
    assert 0 < np.abs(usual - split).max() < 1e-3 * usual.std()
    graph = added(graph, "core", "UNETLoader", unet_name=models_of_comfyui["high"], weight_dtype="default")
    run = comfy.run(changed(graph, "attention", override_from=["core", 0]))
    assert run.outcome == "execution_error"
    assert "override_from has no attention override" in run.error["exception_message"]
