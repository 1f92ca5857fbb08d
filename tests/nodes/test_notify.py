"""Notify in the real ComfyUI: clips that are done, that fail, that are stopped, and a ComfyUI that is killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.workflow import Workflow
from pipeline.remote.database import opened
from tests.support.comfy_client import RejectedError, added, clip_workflow
from tests.support.comfy_outside import PICTURE, PUBLIC, Outside, remote_node
from tests.support.faults import answer
from tests.support.hook_server import HOST
from tests.support.providers.job import FOREVER, Script

HOOK = f"https://{HOST}/clips"
Told = dict[str, Any]


@pytest.fixture(autouse=True)
def keys(outside: Outside) -> Iterator[None]:
    with outside.keys({"fal": outside.providers["fal"].key}):
        outside.hook.told.clear()
        yield
    outside.providers["fal"].script = Script()


def notify(workflow: Workflow, source: str, **inputs: object) -> Workflow:
    return added(workflow, "notify", "Wan22Notify", video=[source, 0], callback_url=HOOK, **inputs)


def remote(seed: int, **inputs: object) -> Workflow:
    return {"picture": PICTURE, "clip": remote_node("fal", seed), **inputs}


def told(outside: Outside, prompt_id: str) -> list[Told]:
    """What the receiver was told of a run, once it was; the test's own time limit ends the wait."""
    found: list[Told] = []
    until(lambda: bool(found.extend(event for event in outside.hook.told if event["data"]["prompt_id"] == prompt_id)
                       or found))
    return found


def put_off(outside: Outside) -> bool:
    """Whether a callback waits for its next try."""
    with opened(outside.own) as base:
        return base.execute("SELECT 1 FROM outbox WHERE state = 'waiting' AND tried > 0").fetchone() is not None


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.05)


def local() -> Workflow:
    return clip_workflow("picture.png")


def still() -> Workflow:
    """A clip that no model makes."""
    save = local()["save"]
    save["inputs"]["images"] = ["frames", 0]
    return {"save": save, "frames": {"class_type": "EmptyImage", "inputs": {
        "width": 64, "height": 64, "batch_size": 5, "color": 255}}}


def test_a_local_clip(outside: Outside) -> None:
    run = outside.comfy.finish(notify(local(), "save"))
    (event,) = told(outside, run.prompt_id)
    data = event["data"]
    assert event["type"] == "clip.done" and data["node"] == "notify"
    assert data["clip"] == {"width": 96, "height": 64, "frames": 5, "fps": 16.0}
    assert data["price"] is None and data["report"] is None and data["url"] is None and data["seconds"] > 0
    (saved,) = outside.comfy.files(run, "save")
    assert len(saved) == data["file"].pop("bytes")
    (shown,) = outside.comfy.history(run.prompt_id)["outputs"]["save"]["images"]
    assert data["file"].items() <= shown.items()
    asked = {node["type"]: node["inputs"] for node in data["request"]}
    assert asked["Wan22Sampler"]["num_inference_steps"] == 10 and "Wan22EncodePrompt" in asked


def test_a_remote_clip_with_its_price(outside: Outside) -> None:
    (outside.own / "remote.json").write_text(json.dumps({"public_url": PUBLIC}))
    run = outside.comfy.finish(notify(remote(1), "clip", report=["clip", 2]))
    (outside.own / "remote.json").unlink()
    (event,) = told(outside, run.prompt_id)
    data = event["data"]
    assert data["price"]["usd"] > 0 and data["report"]["provider"] == "fal"
    assert data["url"] == f"{PUBLIC}/view?filename={data['file']['filename']}&subfolder=wan22%2Fremote&type=output"


def test_a_clip_that_was_there_already_is_told_again(outside: Outside) -> None:
    workflow = notify(still(), "save")
    for run in (outside.comfy.finish(workflow), outside.comfy.finish(workflow)):
        (event,) = told(outside, run.prompt_id)
        assert event["type"] == "clip.done"
    assert {"frames", "save"} <= run.cached


@pytest.mark.parametrize("connected", [True, False])
def test_a_clip_that_fails(connected: bool, outside: Outside) -> None:
    """Whether a canvas listens or not: without one ComfyUI tells nobody of the error."""
    fal = outside.providers["fal"]
    fal.plan(Script(end="failed"))
    workflow = notify(remote(2 + connected), "clip")
    if connected:
        prompt = outside.comfy.submit(workflow)
        assert outside.comfy.follow(prompt).outcome == "execution_error"
    else:
        prompt = json.loads(outside.server.request("/prompt", json.dumps({"prompt": workflow}).encode()))["prompt_id"]
    (event,) = told(outside, prompt)
    assert event["type"] == "clip.failed"
    error = event["data"]["error"]
    assert "could not make the clip" in error["message"] and not error["cancelled"]
    assert error["node"] == "clip" and error["node_type"] == "Wan22RemoteImageToVideo"
    assert event["data"]["request"][0]["inputs"]["prompt"] == "the camera pans left"


def test_a_clip_that_is_stopped(outside: Outside) -> None:
    outside.providers["fal"].script = Script(running=FOREVER)
    run = outside.comfy.run(notify(remote(4), "clip"), on_event=lambda event: outside.comfy.interrupt()
                            if event.kind == "text" and "running" in event.data["text"] else None)
    assert run.outcome == "execution_interrupted"
    (event,) = told(outside, run.prompt_id)
    assert event["type"] == "clip.failed" and event["data"]["error"]["cancelled"]


def test_another_branch_that_fails_is_not_the_clips_failure(outside: Outside) -> None:
    """Nor is a run that ends well told of as failed."""
    outside.providers["fal"].plan(Script(end="failed"))
    workflow = notify(still(), "save") | {"picture": PICTURE, "clip": remote_node("fal", 5), "shown": {
        "class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}}
    first = outside.comfy.run(workflow)
    assert first.outcome == "execution_error"
    (event,) = told(outside, first.prompt_id)
    assert event["type"] == ("clip.done" if "notify" in first.executed else "clip.failed")
    last = outside.comfy.finish(notify(still(), "save"))
    assert [event["type"] for event in told(outside, last.prompt_id)] == ["clip.done"]
    assert len(told(outside, first.prompt_id)) == 1


def test_a_dead_receiver_holds_up_no_graph_and_is_told_after_a_restart(outside: Outside) -> None:
    hook = outside.hook
    hook.fail("hook", answer(500, headers={"Retry-After": "120"}), times=2)
    run = outside.comfy.finish(notify(still(), "save"))
    until(lambda: put_off(outside))  # a try that the end of ComfyUI cuts off is left alone for minutes
    outside.server._process.kill()  # what is killed has no time to put anything in order
    outside.server._process.wait()
    outside.stop()
    hook.fail("hook", answer(503), times=1)
    outside.start()
    (event,) = told(outside, run.prompt_id)
    assert event["type"] == "clip.done"


def test_a_run_that_dies_with_comfyui_is_told_when_it_is_back(outside: Outside) -> None:
    outside.providers["fal"].script = Script(running=FOREVER)
    prompt = outside.comfy.submit(notify(remote(6), "clip"))
    until(lambda: any(job.polls for job in outside.providers["fal"].jobs.values() if not job.finished))
    outside.server._process.kill()
    outside.server._process.wait()
    outside.stop()
    outside.start()
    (event,) = told(outside, prompt)
    assert event["type"] == "clip.failed"
    assert "ComfyUI ended" in event["data"]["error"]["message"]


def test_an_output_folder_behind_a_link_and_another_one_later(outside: Outside, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    seen = []
    try:
        for name in ("link", "other"):
            outside.stop()
            outside.server.options = ["--output-directory", str(tmp_path / name)]
            outside.start()
            run = outside.comfy.finish(notify(remote(8), "clip"))
            (event,) = told(outside, run.prompt_id)
            assert event["type"] == "clip.done" and event["data"]["clip"]["width"] > 0
            seen.append((event["data"]["file"], outside.comfy.history(run.prompt_id)["outputs"].get("clip")))
    finally:
        outside.stop()
        outside.server.options = []
        outside.start()
    (file, shown), elsewhere = seen
    assert file["subfolder"] == "wan22/remote" and file["filename"] == shown["images"][0]["filename"]
    assert elsewhere == (None, None), "the canvas cannot get it; Notify had it from the node's output"


@pytest.mark.parametrize("inputs, said", [
    ({"callback_url": "http://hooks.example/"}, "only https"), ({"callback_url": "https://127.0.0.1/"}, "this machine"),
    ({"callback_url": ""}, "is empty"), ({"profile": "whsec_x=/"}, "profile is not a profile name")])
def test_refused_when_it_is_queued(inputs: dict, said: str, outside: Outside) -> None:
    workflow = {"notify": {"class_type": "Wan22Notify", "inputs": {"callback_url": HOOK, **inputs}}}
    with pytest.raises(RejectedError) as caught:
        outside.comfy.submit(workflow)
    assert said in str(caught.value)


def test_a_clip_of_no_file(outside: Outside) -> None:
    workflow = still() | {"video": {"class_type": "CreateVideo", "inputs": {"images": ["frames", 0], "fps": 16.0}}}
    del workflow["save"]
    run = outside.comfy.finish(notify(workflow, "video"))
    (event,) = told(outside, run.prompt_id)
    assert event["data"]["file"] is None and event["data"]["clip"]["frames"] == 5
    assert any("not a file in the output folder" in text for text in run.texts("notify"))


def test_nothing_to_tell(outside: Outside) -> None:
    workflow = {"1": {"class_type": "Wan22Notify", "inputs": {"callback_url": f"{HOOK}?id=7"}}}
    run = outside.comfy.run(workflow)
    assert "Connect video, report, or both" in run.error["exception_message"]
    (event,) = told(outside, run.prompt_id)
    assert event["type"] == "clip.failed"
