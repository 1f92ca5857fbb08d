"""Two real ComfyUIs, the one as the other's provider: the clip that comes across is the one that is made here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import av
import numpy as np
import pytest
import requests
from PIL import Image

from devtools.server import ComfyServer
from pipeline.remote.providers import PROVIDERS
from pipeline.serve.operations import BASE
from pipeline.video.join_files import last_frame
from pipeline.video.picture import encode_picture
from tests.support.comfy_client import changed, clip_workflow, sample_picture
from tests.support.comfy_outside import PICTURE, Outside, remote_node
from tests.support.lora_files import DRAIN
from tests.support.runner import OWN

LORA = DRAIN["high"].name
CLIP = {"prompt": "everything turns blue", "num_frames": 17, "num_inference_steps": 10, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def key(server: ComfyServer) -> Iterator[str]:
    """A key of the other ComfyUI, whose API is on meanwhile."""
    serving = f"{server.url}/wan22/serving"
    assert requests.post(serving, json={"on": True}, timeout=60).ok
    yield requests.post(f"{serving}/keys", json={"name": "desk"}, timeout=60).json()["key"]
    requests.delete(f"{serving}/keys", json={"name": "desk"}, timeout=60)
    requests.post(serving, json={"on": None}, timeout=60)


def frames(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_clips_of_the_other_machine_are_those_that_are_made_here(outside: Outside, server: ComfyServer,
                                                                 key: str) -> None:
    """A clip and one that goes on from its last frame, with a LoRA for some of the steps, and a picture for the end."""
    comfy, inputs = outside.comfy, outside.server.base / "input"
    folder = outside.server.base / "output" / "wan22" / "remote"
    Image.fromarray(sample_picture(128, 96)[::-1]).save(inputs / "last.png")
    lora = {"class_type": "Wan22Lora", "inputs": {"source": LORA, "scale": 0.8, "expert": "auto", "end_percent": 0.5}}
    last = {"class_type": "LoadImage", "inputs": {"image": "last.png"}}
    segment = {"class_type": "Wan22Segment", "inputs": {"prompt": "it turns green", "seed": 8, "num_frames": 17}}
    remote = {"picture": PICTURE, "lora": lora, "last": last, "segment": segment,
              "clip": remote_node(OWN, 7, **CLIP, loras=["lora", 0], segments=["segment", 0], last_image=["last", 0]),
              "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}}
    with outside.keys({OWN: key}, address=server.url):
        run = comfy.finish(remote)
        whole = json.loads(comfy.history(run.prompt_id)["outputs"]["report"]["text"][0])
    clips = [folder / report["file"] for report in whole["segments"]]
    (inputs / "between.png").write_bytes(encode_picture(last_frame(clips[0], None))[0])
    for clip, picture, prompt, seed in zip(clips, ("picture.png", "between.png"),
                                           (CLIP["prompt"], segment["inputs"]["prompt"]), (7, 8), strict=True):
        local = changed(changed(clip_workflow(picture, 128, 128, num_frames=17), "prompt", prompt=prompt), "sampler",
                        seed=seed, guidance_scale=CLIP["guidance_scale"], loras=["lora", 0])
        if seed == 8:
            local = changed(local, "frame", last_image=["last", 0])
        (made,) = comfy.files(comfy.finish({**local, "lora": lora, "last": last}), "save")
        np.testing.assert_array_equal(frames(clip.read_bytes()), frames(made))
    assert len(frames((folder / whole["file"]).read_bytes())) == 17 + 16
    assert whole["price"]["usd"] == 0.0
    for report in whole["segments"]:
        assert report["price"] == {"usd": 0.0, "source": "on a server of your own"} and report["provider"] == OWN
        assert report["changed"] == ["resolution is 480p, but wan2.2-i2v-demo makes clips of 128x128."]
    found = requests.get(f"{server.url}{BASE}/predictions", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    there = found.json()["predictions"][::-1]
    assert [one["id"] for one in there] == [report["remote_id"] for report in whole["segments"]]
    assert [one["request"]["last_image"] is not None for one in there] == [False, True]
    assert all(one["request"]["loras"][0]["url"].startswith("upload:") for one in there)
    texts = [event.data["text"] for event in run.events if event.kind == "text"]
    assert any(text.startswith(f"{PROVIDERS[OWN].title}: running") for text in texts)


def test_a_comfyui_that_is_its_own_provider_is_told_so(outside: Outside) -> None:
    serving = f"{outside.server.url}/wan22/serving"
    assert requests.post(serving, json={"on": True}, timeout=60).ok
    own = requests.post(f"{serving}/keys", json={"name": "self"}, timeout=60).json()["key"]
    with outside.keys({OWN: own}, address=outside.server.url):
        run = outside.comfy.run({"picture": PICTURE, "clip": remote_node(OWN, 8, **CLIP),
                                 "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}})
        assert "is this ComfyUI itself" in run.error["exception_message"]
    requests.delete(f"{serving}/keys", json={"name": "self"}, timeout=60)
    requests.post(serving, json={"on": None}, timeout=60)
