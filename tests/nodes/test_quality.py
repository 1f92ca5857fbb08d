"""Check Clip, Retry and Clip Grid on the real server, with the bundled model."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import pytest

from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, Run, added, changed, without

FRAMES, STEPS = 9, 8


@pytest.fixture
def checked(clip: Workflow) -> Workflow:
    """A clip that is saved, checked against its picture, and tried again when that fails."""
    graph = changed(changed(clip, "frame", num_frames=FRAMES), "sampler", num_inference_steps=STEPS, seed=5)
    graph = changed(graph, "prompt", prompt="nothing moves")
    graph = added(graph, "check", "Wan22CheckClip", clip=["save", 0])
    graph = added(graph, "retry", "Wan22Retry", clip=["save", 0], passed=["check", 0], retries=2,
                  when_none_passes="give the last", buy_again=False)
    graph = added(graph, "said", "PreviewAny", source=["check", 2])
    graph = added(graph, "worst", "PreviewImage", images=["check", 3])
    return added(graph, "end", "PreviewAny", source=["retry", 1])


@pytest.fixture
def failing(comfy: ComfyClient, checked: Workflow) -> Workflow:
    """The same against a picture that is not the clip's: it never passes."""
    graph = added(checked, "other", "LoadImage", image=comfy.upload("grey", np.full((64, 96, 3), 40, np.uint8)))
    return changed(graph, "check", picture=["other", 0])


def text(comfy: ComfyClient, run: Run, node: str) -> str:
    return comfy.history(run.prompt_id)["outputs"][node]["text"][0]


def test_a_clip_of_the_bundled_model_passes(comfy: ComfyClient, checked: Workflow) -> None:
    run = comfy.finish(checked)
    report = json.loads(text(comfy, run, "said"))
    assert report["failed"] == [] and report["pass"] and report["frames"] == FRAMES and report["score"] >= 0.5
    assert text(comfy, run, "end").lower() == "true" and run.texts("check")[-1].startswith("pass, score")
    assert run.executed.count("sampler") == 1 and comfy.frames(run, "worst").shape == (1, 64, 96, 3)
    frames = comfy.finish(changed(checked, "check", clip=["decode", 0]))
    assert json.loads(text(comfy, frames, "said"))["pass"]


def test_a_clip_that_fails_is_made_again_with_other_seeds(comfy: ComfyClient, failing: Workflow) -> None:
    run = comfy.finish(failing)
    assert "the first frame is not the picture at frame 1" in run.texts("check")[0]
    assert [line.split(";")[0] for line in run.texts("retry")] == [
        "The clip failed its check: again with seed 6", "The clip failed its check: again with seed 7",
        "No clip passed its check"]
    assert text(comfy, run, "end").lower() == "false"
    saved = {entry["filename"] for event in run.events if event.kind == "executed"
             for entry in (event.data.get("output") or {}).get("images", ()) if entry.get("num_frames")}
    assert len(saved) == 3
    stopped = comfy.run(changed(failing, "retry", when_none_passes="stop", retries=0))
    assert "No clip passed its check. Look at the report" in stopped.error["exception_message"]


def test_what_cannot_be_tried_again(comfy: ComfyClient, failing: Workflow) -> None:
    graph = added(without(failing, "said", "worst"), "black", "EmptyImage", width=64, height=64, batch_size=5,
                  color=0)
    graph = changed(changed(graph, "check", clip=["black", 0]), "retry", clip=["black", 0])
    assert "No node before this one has a seed" in comfy.run(graph).error["exception_message"]


def test_a_grid_plays_clips_in_step(comfy: ComfyClient, checked: Workflow) -> None:
    graph = added(without(checked, "check", "retry", "said", "worst", "end"), "black", "EmptyImage", width=64,
                  height=64, batch_size=3, color=0xFF0000)
    graph = added(graph, "grid", "Wan22ClipGrid", **{"clips.clip_1": ["save", 0], "clips.clip_2": ["black", 0],
                                                     "clips.clip_3": ["decode", 0]},
                  labels="saved\nred", columns=0, cell_width=0, fps=0.0, filename_prefix="grids/grid")
    run = comfy.finish(graph)
    with av.open(io.BytesIO(comfy.files(run, "grid")[0])) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
    assert frames.shape == (FRAMES, 2 * (64 + 28), 2 * 96, 3)
    first, red, third = frames[:, :64, :96], frames[:, :64, 96:], frames[:, 92:156, :96]
    assert np.abs(first - third).mean() < 8
    assert (red[:, 8:56, 24:72, 0] > 200).all() and (red[:, :, :8] < 40).all()  # whole, with black beside it
    assert frames[0, 64:92, :96].max() > 200 and frames[0, 156:, :96].max() < 40  # a label, and none
    failed = comfy.run(changed(graph, "grid", labels="a\nb\nc\nd"))
    assert "There are 4 labels and 3 clips" in failed.error["exception_message"]
