"""Long Clip, Segment and Extend Clip on a real ComfyUI: made, stopped, gone on with, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from devtools.workflow import Workflow
from tests.nodes.test_cancel import StopWhen
from tests.support.comfy_client import ComfyClient, RejectedError, added, changed, messages

SIZE = {"resolution": "custom", "resolution.width": 48, "resolution.height": 32}
STEPS = 2


@pytest.fixture
def long_clip(clip: Workflow) -> Workflow:
    """Three segments of 9 frames: 17 frames."""
    graph = {name: clip[name] for name in ("picture", "load")}
    chain: dict[str, Any] = {}
    for place in (1, 2, 3):
        graph = added(graph, f"segment {place}", "Wan22Segment", prompt="the camera pans left", seed=place,
                      num_frames=9, **chain)
        chain = {"segments": [f"segment {place}", 0]}
    graph = added(graph, "long", "Wan22LongClip", model=["load", 0], clip=["load", 1], vae=["load", 2],
                  image=["picture", 0], negative_prompt="", way="frames", known_frames="5", num_inference_steps=STEPS,
                  guidance_scale=5.0, fps=16.0, filename_prefix="chained/clip", **SIZE, **chain)
    return added(graph, "report", "PreviewAny", source=["long", 1])


def frames_of(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def report_of(comfy: ComfyClient, run: Any) -> str:
    return comfy.history(run.prompt_id)["outputs"]["report"]["text"][0]


def test_a_clip_is_stopped_and_gone_on_with(comfy: ComfyClient, long_clip: Workflow) -> None:
    """Stop in segment 2, then run again, beside a clip that nobody stopped."""
    unbroken = comfy.finish(changed(long_clip, "long", filename_prefix="unbroken/clip"))
    (expected,) = comfy.files(unbroken, "long")
    assert unbroken.progress("long")[-1] == (3 * STEPS, 3 * STEPS)
    told = unbroken.texts("long")
    assert told[0].startswith("3 segments, going on by frames: 17 frames, 1.1 s at 16 a second.")
    assert any(text.startswith("segment 2 of 3, step 1 of 2, ") and text.endswith(" left") for text in told)
    assert "segment 3 of 3, frame 9 of 9" in told
    strips = [Image.open(io.BytesIO(data)) for data in unbroken.previews("long")]
    assert len(strips) == 3 * STEPS

    prompt_id = comfy.submit(long_clip)
    stop = StopWhen(lambda: comfy.cancel(prompt_id), "progress", "long", STEPS + 1)
    run = comfy.follow(prompt_id, stop)
    assert run.outcome == "execution_interrupted"
    folder = comfy.server.base / "output" / "chained" / "clip_segments"
    assert run.texts("long")[-1] == ("Stopped in segment 2 of 3. Run the same again: it goes on there. What is "
                                     f"finished: {folder / 'so_far.mp4'}.")
    assert frames_of((folder / "so_far.mp4").read_bytes()).shape == (9, 32, 48, 3), "the first segment can be played"
    assert not list(folder.parent.glob("*.mp4"))

    resumed = comfy.finish(long_clip)
    (made,) = comfy.files(resumed, "long")
    assert resumed.texts("long")[0].startswith("Goes on with segment 2 of 3: segment 1 is on the disk.\n")
    assert resumed.progress("long")[0] == (1, 2 * STEPS), "only two segments are sampled"
    assert np.array_equal(frames_of(made), frames_of(expected))
    report = report_of(comfy, resumed)
    assert "Segment 1 (9 frames): taken from the disk." in report
    assert "Segment 2 (9 frames): made; joint: seam " in report and str(folder) in report
    with av.open(io.BytesIO(made)) as container:
        assert "Wan22LongClip" in container.metadata["prompt"] and "AI-generated" in container.metadata["comment"]


def test_a_clip_is_extended_by_every_way(comfy: ComfyClient, clip: Workflow) -> None:
    graph = added(clip, "longer", "Wan22FirstFrame", **{**clip["frame"]["inputs"], "num_frames": 9})
    graph = changed(graph, "sampler", first_frame=["longer", 0], num_inference_steps=STEPS)
    ways = {"auto": ["decode", 0], "SVI": ["sampler", 0], "last frame": ["save", 0], "frames": ["sampler", 0]}
    for way, source in ways.items():
        graph = added(graph, way, "Wan22ExtendClip", vae=["load", 2], clip=source, num_frames=9, way=way,
                      known_frames="5")
        graph = added(graph, f"{way} sampled", "Wan22Sampler", **{**graph["sampler"]["inputs"], "seed": 5,
                                                                 "first_frame": [way, 0]})
        graph = added(graph, f"{way} decoded", "Wan22Decode", vae=["load", 2], latent=[f"{way} sampled", 0])
        graph = added(graph, f"{way} shown", "PreviewImage", images=[f"{way} decoded", 0])
        graph = added(graph, f"{way} known", "PreviewImage", images=[way, 2])
        graph = added(graph, f"{way} overlap", "PreviewAny", source=[way, 1])
    run = comfy.finish(graph)
    outputs = comfy.history(run.prompt_id)["outputs"]
    overlaps = {way: outputs[f"{way} overlap"]["text"][0] for way in ways}
    assert overlaps == {"auto": "5", "SVI": "5", "last frame": "1", "frames": "5"}
    for way in ways:
        assert comfy.frames(run, f"{way} shown").shape == (9, 64, 96, 3)
        assert run.texts(way)[-1].startswith(f"Goes on by {'frames' if way == 'auto' else way}: the first")
    known = {way: comfy.frames(run, f"{way} known").astype(int) for way in ways}
    assert np.abs(known["auto"] - known["frames"]).max() <= 1, "frames of a clip are those that its latents decode to"
    assert np.array_equal(known["SVI"], known["frames"][-4:])
    assert np.abs(known["last frame"] - known["frames"][-1:]).mean() < 4, "an MP4 loses a little"


@pytest.mark.parametrize(("inputs", "said"), [
    ({"num_frames": 10}, "num_frames is 10; it must be a multiple of 4 plus 1, such as 9 or 13."),
    ({"prompt": " "}, "The prompt is empty. Describe what should happen in the clip."),
])
def test_a_bad_segment_is_refused_before_the_run(comfy: ComfyClient, long_clip: Workflow, inputs: dict[str, Any],
                                                 said: str) -> None:
    with pytest.raises(RejectedError) as caught:
        comfy.submit(changed(long_clip, "segment 2", **inputs))
    assert said in messages(caught.value.errors["segment 2"])


@pytest.mark.parametrize(("inputs", "said"), [
    ({"resolution.width": 50}, "width is 50 pixels; Wan 2.2 needs a multiple of 16"),
    ({"known_frames": "13"}, "Segment 1 is 9 frames long, and segments share 13 here."),
    ({"loop": True, "last_image": ["picture", 0]}, "There is a last_image, and loop is on"),
])
def test_what_does_not_fit_ends_the_run_with_its_sentence(comfy: ComfyClient, long_clip: Workflow,
                                                          inputs: dict[str, Any], said: str) -> None:
    run = comfy.run(changed(long_clip, "long", **inputs))
    assert run.outcome == "execution_error" and run.error["node_id"] == "long"
    assert said in run.error["exception_message"]


@pytest.mark.parametrize(("graph", "said"), [
    ({"clip": ["picture", 0], "way": "frames"}, "The clip has 1 frames, and known_frames is 5."),
    ({"clip": ["odd", 0]}, "The clip is 100x64 pixels, and Wan 2.2 needs multiples of 16. Scale its frames to 96x64"),
    ({"clip": ["other", 0]}, "The latent has the shape"),
    ({"num_frames": 5}, "num_frames is 5, of which 5 are known already; choose at least 9."),
])
def test_a_clip_that_cannot_be_extended(comfy: ComfyClient, clip: Workflow, graph: dict[str, Any], said: str) -> None:
    nodes = {name: clip[name] for name in ("picture", "load")}
    nodes = added(nodes, "odd", "ImageScale", image=["picture", 0], upscale_method="bilinear", width=100, height=64,
                  crop="disabled")
    nodes = added(nodes, "other", "EmptyLatentImage", width=96, height=64, batch_size=1)
    nodes = added(nodes, "extend", "Wan22ExtendClip", **{"vae": ["load", 2], "clip": ["picture", 0], "num_frames": 9,
                                                        "way": "auto", "known_frames": "5", **graph})
    run = comfy.run(added(nodes, "shown", "PreviewImage", images=["extend", 2]))
    assert run.outcome == "execution_error" and run.error["node_id"] == "extend"
    assert said in run.error["exception_message"]
