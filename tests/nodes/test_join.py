"""Join Clips on the real server: clips of the bundled model, one from the last frame of the other, and bad ones."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest

from devtools.server import ComfyServer
from devtools.workflow import Workflow
from tests.support.comfy_client import ComfyClient, RejectedError, added, changed, without

FRAMES, STEPS = 9, 4


@pytest.fixture
def chain(clip: Workflow) -> Workflow:
    """Two clips, the second from the last frame of the first, and a node that joins them."""
    graph = changed(clip, "frame", num_frames=FRAMES)
    graph = changed(graph, "sampler", num_inference_steps=STEPS)
    graph = added(graph, "last", "ImageFromBatch", image=["decode", 0], batch_index=FRAMES - 1, length=1)
    for node in ("frame", "sampler", "decode", "save"):
        graph[f"{node}2"] = json.loads(json.dumps(graph[node]))
    graph = changed(graph, "frame2", image=["last", 0])
    graph = changed(graph, "sampler2", first_frame=["frame2", 0], seed=7)
    graph = changed(graph, "decode2", latent=["sampler2", 0])
    graph = changed(graph, "save2", images=["decode2", 0])
    return added(graph, "join", "Wan22JoinClips", **{"clips.clip_1": ["save", 0], "clips.clip_2": ["save2", 0]},
                 overlap=1, cross_fade=4, match_colours="at the joint", strength=1.0, new_shots="none",
                 mismatch="conform", fps=0.0, filename_prefix="joined/%width%")


def decoded(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_clip_and_the_one_from_its_last_frame(comfy: ComfyClient, chain: Workflow) -> None:
    chain = added(chain, "said", "PreviewAny", source=["join", 1])
    run = comfy.finish(added(chain, "core", "GetVideoComponents", video=["join", 0]))
    frames = decoded(comfy.files(run, "join")[0])
    assert len(frames) == 2 * FRAMES - 1 and run.progress("join")[-1] == (2 * FRAMES, 2 * FRAMES)
    (entry,) = comfy.history(run.prompt_id)["outputs"]["join"]["images"]
    assert (entry["subfolder"], entry["filename"], entry["num_frames"]) == ("joined", "96_00001_.mp4", 2 * FRAMES - 1)
    report = json.loads(comfy.history(run.prompt_id)["outputs"]["said"]["text"][0])
    (joint,) = report["joints"]
    assert (joint["overlap"], joint["new_shot"], joint["frame"]) == (1, False, FRAMES - 1)
    assert "seam" in run.texts("join")[-1] and "clip_2 (" in run.texts("join")[-1]


def test_what_cannot_be_joined(comfy: ComfyClient, server: ComfyServer, chain: Workflow) -> None:
    with pytest.raises(RejectedError, match="new_shots is 'all'"):
        comfy.submit(changed(chain, "join", new_shots="all"))
    run = comfy.run(changed(chain, "join", overlap=-1, **{"clips.clip_2": ["save", 0]}))
    assert "repeat the clip before, which leaves none" in run.error["exception_message"]
    assert "repeat the clip before" in run.texts("join")[-1]
    whole = comfy.finish(changed(without(chain, "join"), "save", filename_prefix="whole"))
    (server.base / "input" / "damaged.mp4").write_bytes(comfy.files(whole, "save")[0][:-400])
    damaged = added(chain, "damaged", "LoadVideo", file="damaged.mp4")
    joined = Path(server.base, "output", "joined")
    before = set(joined.glob("*"))
    run = comfy.run(changed(damaged, "join", **{"clips.clip_2": ["damaged", 0]}))
    assert "clip_2 (damaged.mp4) is" in run.error["exception_message"] and "damaged" in run.texts("join")[-1]
    assert set(joined.glob("*")) == before
