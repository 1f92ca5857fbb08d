"""Camera Path and Move Object on a real ComfyUI: a clip that follows, what is refused, and the presets."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from devtools.workflow import Workflow
from pipeline.motion.path import read_camera_path
from pipeline.motion.presets import PRESETS
from tests.support.comfy_client import ComfyClient, RejectedError, added, changed, messages, without

SIZE = {"resolution": "custom", "resolution.width": 96, "resolution.height": 64, "num_frames": 5}
STRENGTH = "bundled demo model (0.9, 0.1)"


@pytest.fixture
def moved(clip: Workflow) -> Workflow:
    """The shipped clip with a camera that pans, and a part of the picture that moves in it."""
    path = json.dumps({"keyframes": [{"t": 0, "zoom": 1.5}, {"t": 1, "zoom": 1.5, "x": 0.1}]})
    graph = added(clip, "camera", "Wan22CameraPath", vae=["load", 2], image=["picture", 0], path=path,
                  strength=STRENGTH, **SIZE)
    graph = added(graph, "area", "SolidMask", value=0.0, width=96, height=64)
    graph = added(graph, "spot", "SolidMask", value=1.0, width=16, height=16)
    graph = added(graph, "mask", "MaskComposite", destination=["area", 0], source=["spot", 0], x=40, y=24,
                  operation="add")
    graph = added(graph, "object", "Wan22MoveObject", vae=["load", 2], image=["picture", 0], mask=["mask", 0],
                  path='{"keyframes": [{"t": 0}, {"t": 1, "y": 0.2}]}', strength=STRENGTH, motion=["camera", 0], **SIZE)
    graph = added(graph, "shown", "PreviewImage", images=["object", 1])
    graph = changed(graph, "frame", image=["camera", 1])
    return changed(changed(graph, "sampler", motion=["object", 0]), "decode", motion=["object", 0])


def test_a_clip_follows_its_motion_in_both_samplers_and_decode_tells(comfy: ComfyClient, moved: Workflow,
                                                                     models_of_comfyui: dict[str, str]) -> None:
    settings = {key: value for key, value in moved["sampler"]["inputs"].items() if key != "model"}
    graph = moved
    for expert in ("high", "low"):
        graph = added(graph, expert, "UNETLoader", unet_name=models_of_comfyui[expert], weight_dtype="default")
    graph = added(graph, "bridge", "Wan22BridgeSampler", model_high=["high", 0], model_low=["low", 0], **settings)
    graph = added(graph, "bridged", "Wan22Decode", **{**graph["decode"]["inputs"], "latent": ["bridge", 0]})
    graph = added(graph, "seen", "PreviewImage", images=["bridged", 0])
    run = comfy.finish(graph)
    animatic = comfy.frames(run, "shown").astype(float)
    assert animatic.shape == (5, 64, 96, 3) and np.abs(animatic[-1] - animatic[0]).mean() > 2
    for node in ("decode", "bridged"):
        (told,) = run.texts(node)
        found = re.fullmatch(r"camera path: (\d+\.\d) px right; found: .*; at most (\d+\.\d) px apart", told)
        assert found and float(found[1]) == pytest.approx(14.4, abs=0.2) and float(found[2]) < 4, told
    assert run.progress("sampler")[-1] == (10, 10)


def test_depth_of_the_picture_changes_what_the_camera_shows(comfy: ComfyClient, moved: Workflow) -> None:
    graph = added(without(moved, "save", "decode", "sampler"), "near", "MaskToImage", mask=["mask", 0])
    graph = added(graph, "flat", "PreviewImage", images=["camera", 2])
    graph = added(graph, "deep camera", "Wan22CameraPath", **{**graph["camera"]["inputs"], "depth": ["near", 0]})
    graph = added(graph, "deep", "PreviewImage", images=["deep camera", 2])
    run = comfy.finish(graph)
    flat, deep = (comfy.frames(run, name).astype(float) for name in ("flat", "deep"))
    assert np.abs(deep[-1] - flat[-1]).mean() > 1


@pytest.mark.parametrize(("node", "inputs", "said"), [
    ("camera", {"path": '{"keyframes": [{"t": 1}, {"t": 0}]}'}, "Keyframe 2 of the path is at t 0, and the one before"),
    ("camera", {"num_frames": 6}, "num_frames is 6; it must be a multiple of 4 plus 1"),
    ("object", {"path": "{}"}, "path has no keyframes"),
])
def test_what_is_refused_before_the_run(comfy: ComfyClient, moved: Workflow, node: str, inputs: dict[str, Any],
                                        said: str) -> None:
    with pytest.raises(RejectedError) as caught:
        comfy.submit(changed(moved, node, **inputs))
    assert any(told.startswith(said) for told in messages(caught.value.errors[node]))


@pytest.mark.parametrize(("node", "inputs", "failing", "said"), [
    ("camera", {"path": '{"keyframes": [{"t": 0, "x": 5}]}'}, "camera", "the camera shows nothing of the picture"),
    ("camera", {"num_frames": 9}, "object", "for 9 frames of 96x64, this node for 5 of 96x64"),
    ("frame", {"num_frames": 9}, "sampler", "for 5 frames of 96x64, first_frame for 9 of 96x64"),
    ("sampler", {"denoise": 0.5, "latent": ["empty", 0]}, "sampler", "Both the latent and another input"),
    ("decode", {"latent": ["longer", 0]}, "decode", "for 5 frames of 96x64, the latent is of 9 of 96x64"),
    ("camera", {"strength": "custom", "strength.weak_sigma": 0.2, "strength.strong_sigma": 0.4}, "camera",
     "weak_sigma is 0.2 and strong_sigma 0.4"),
])
def test_what_does_not_fit_ends_the_run_with_its_sentence(comfy: ComfyClient, moved: Workflow, node: str,
                                                          inputs: dict[str, Any], failing: str, said: str) -> None:
    graph = changed(moved, node, **inputs)
    if "latent" in inputs:
        for name, length in (("empty", 5), ("longer", 9)):
            graph = added(graph, name, "EmptyHunyuanLatentVideo", width=96, height=64, length=length, batch_size=1)
    run = comfy.run(graph)
    assert run.outcome == "execution_error" and run.error["node_id"] == failing
    assert said in run.error["exception_message"]


def test_an_object_alone_is_held_by_its_own_strength(comfy: ComfyClient, moved: Workflow) -> None:
    graph = changed(moved, "object", **{"strength": "custom", "strength.weak_sigma": 0.95,
                                        "strength.strong_sigma": 0.94})
    del graph["object"]["inputs"]["motion"]
    run = comfy.run(changed(graph, "frame", image=["picture", 0]))
    assert run.outcome == "execution_error" and run.error["node_id"] == "sampler"
    assert "The motion steers from sigma 0.95 to 0.94, and no step starts there" in run.error["exception_message"]


def test_the_editor_gets_the_presets(comfy: ComfyClient) -> None:
    presets = comfy.get("/wan22/camera_presets")
    assert {preset["name"]: preset["path"] for preset in presets} == PRESETS
    assert all(read_camera_path(json.dumps(preset["path"])) for preset in presets)
