"""Replies of the real providers, as public clients and people's notes recorded them: read aright, and the loopback
providers' replies have every field of them.

Written anew, shortened, with other ids and links. Sources: replicate-python 1.0.7, tests/cassettes and test_webhooks;
fal-client 1.0.3, tests/unit/test_client, and fal.ai's page on its queue; wavespeed-python, tests/test_api, and outputs
that workflows print; clients of AtlasCloud that keep a reply for their tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.remote.api import Reply
from pipeline.remote.errors import ErrorKind, RemoteError
from pipeline.remote.job import JobState
from pipeline.remote.model import RemoteModel
from pipeline.remote.plan import TRIM, plan_clip
from pipeline.remote.provider import JobStatus, Provider, RequestFlow
from pipeline.remote.providers import PROVIDERS
from pipeline.remote.providers.replicate import read_secret, verify
from pipeline.remote.signatures import WebhookRequest
from pipeline.request import ClipRequest
from tests.support.providers import published
from tests.support.providers.job import Script
from tests.support.runner import OWN, SERVERS, Runner

CLIP = "https://files.example/clip.mp4"


def wavespeed(**data: Any) -> dict[str, Any]:
    return {"code": 200, "message": "success", "data": {
        "id": "d66f959b", "model": "google/veo3-fast", "outputs": [], "urls": {
            "get": "https://api.wavespeed.ai/api/v3/predictions/d66f959b/result"},
        "has_nsfw_contents": [], "status": "created", "created_at": "2025-08-19T11:34:26Z", "error": "",
        "executionTime": 0, "timings": {"inference": 0}, **data}}


def atlascloud(**data: Any) -> dict[str, Any]:
    return {"code": 200, "message": "", "data": {
        "id": "8ba2926c", "model": "kwaivgi/kling-v3.0-pro/image-to-video", "outputs": None, "status": "processing",
        "urls": {"get": "https://api.atlascloud.ai/api/v1/model/prediction/8ba2926c"}, **data}}


def fal(**fields: Any) -> dict[str, Any]:
    base = "https://queue.fal.run/fal-ai/nano-banana/requests/f8837f29"
    return {"status": "IN_QUEUE", "request_id": "f8837f29", "response_url": base, "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel", "logs": None, "metrics": {}, **fields}


def replicate(**fields: Any) -> dict[str, Any]:
    base = "https://api.replicate.com/v1/predictions/heat2o3b"
    return {"id": "heat2o3b", "model": "replicate/lifeboat-70b", "version": "d-c6559c57",
            "input": {"prompt": "a haiku"}, "logs": "", "error": None, "status": "starting",
            "created_at": "2023-11-27T13:35:45.99397566Z", "urls": {"cancel": f"{base}/cancel", "get": base}, **fields}


def another_comfyui(**fields: Any) -> dict[str, Any]:
    """As docs/api.md shows it."""
    base = "http://192.168.1.20:8188/wan22/api/v1/predictions/0b0f6a0e-5f0c-4d0b-9a58-5c0a7d3a8d11"
    return {"id": "0b0f6a0e-5f0c-4d0b-9a58-5c0a7d3a8d11", "model": "wan2.2-i2v-demo", "status": "queued",
            "queue_position": 0, "progress": None, "outputs": [], "error": None, "warnings": [],
            "request": {"image": "upload:5c0a", "prompt": "everything turns blue", "negative_prompt": "", "loras": [],
                        "num_frames": 33, "resolution": "480p", "num_inference_steps": 30, "guidance_scale": 5.0,
                        "seed": 7}, "created_at": "2026-11-29T02:30:00.000Z", "started_at": None, "ended_at": None,
            "urls": {"get": base, "result": f"{base}/result", "cancel": f"{base}/cancel"}, **fields}


SUBMITTED = {"wavespeed": (200, wavespeed()), "atlascloud": (200, atlascloud()), "fal": (200, fal(queue_position=0)),
             "replicate": (201, replicate()), OWN: (202, another_comfyui())}
DONE = {
    "wavespeed": (200, wavespeed(status="completed", outputs=[CLIP], has_nsfw_contents=[False], executionTime=54710,
                                 timings={"inference": 54710})),
    "atlascloud": (200, atlascloud(status="completed", outputs=[CLIP], error=None)),
    "fal": (200, fal(status="COMPLETED", metrics={"inference_time": 1.5})),
    "replicate": (200, replicate(status="succeeded", output=[CLIP], metrics={"predict_time": 3.804328})),
    OWN: (200, another_comfyui(status="completed", queue_position=None, outputs=[
        "http://192.168.1.20:8188/wan22/api/v1/files/0b0f/clip.mp4?expires=1&signature=2"])),
}
LINKS = {OWN: "/wan22/api/v1/files/0b0f/clip.mp4?expires=1&signature=2"}
"""What is read of the clip's link, where that is not the whole."""
POLLS: list[tuple[str, dict[str, Any], JobStatus]] = [
    ("wavespeed", wavespeed(status="pending"), JobStatus(JobState.QUEUED)),
    ("wavespeed", wavespeed(status="processing"), JobStatus(JobState.RUNNING)),
    ("wavespeed", wavespeed(status="failed", error="Model error"), JobStatus(JobState.FAILED, message="Model error")),
    ("atlascloud", atlascloud(), JobStatus(JobState.RUNNING)),
    ("atlascloud", atlascloud(status="failed", error="Upstream access denied, please contact administrator.",
                              error_code=1013002),
     JobStatus(JobState.FAILED, message="Upstream access denied, please contact administrator.")),
    ("fal", fal(queue_position=123), JobStatus(JobState.QUEUED, "", 123)),
    ("fal", fal(status="IN_PROGRESS", logs=[{"msg": "foo"}]), JobStatus(JobState.RUNNING)),
    ("fal", fal(status="COMPLETED", error="Runner disconnected", error_type="runner_disconnected"),
     JobStatus(JobState.FAILED, message="Runner disconnected")),
    ("fal", fal(status="COMPLETED", error="Request timed out", error_type="request_timeout"),
     JobStatus(JobState.FAILED, message="Request timed out")),
    ("replicate", replicate(), JobStatus(JobState.QUEUED)),
    ("replicate", replicate(status="processing"), JobStatus(JobState.RUNNING)),
    (OWN, another_comfyui(queue_position=3), JobStatus(JobState.QUEUED, "", 3)),
    (OWN, another_comfyui(status="running", progress={"step": 3, "steps": 30, "seconds_left": 41.2}),
     JobStatus(JobState.RUNNING, message="step 3 of 30, 41 s left")),
    (OWN, another_comfyui(status="running", progress={"step": 0, "steps": 30, "seconds_left": None}),
     JobStatus(JobState.RUNNING, message="step 0 of 30")),
    (OWN, another_comfyui(status="cancelled", error={"code": "removed", "message": "Somebody removed the run."}),
     JobStatus(JobState.CANCELED, message="Somebody removed the run.")),
    (OWN, another_comfyui(status="completed", outputs=["http://169.254.169.254/latest/meta-data"]),
     JobStatus(JobState.FAILED, message="it finished without a clip")),
]
REFUSALS: list[tuple[str, int, dict[str, Any], ErrorKind]] = [
    ("wavespeed", 200, {"code": 500, "message": "Upload failed: invalid file type"}, ErrorKind.TRANSIENT),
    ("atlascloud", 200, {"code": 402, "msg": "insufficient balance", "data": None}, ErrorKind.QUOTA),
    ("atlascloud", 503, {"message": "temporary failure"}, ErrorKind.TRANSIENT),
    (OWN, 429, {"error": {"code": "queue_full", "message": "20 wait."}}, ErrorKind.RATE_LIMIT),
    (OWN, 422, {"error": {"code": "invalid_request", "message": "num_frames is 50.", "field": "num_frames"}},
     ErrorKind.VALIDATION),
    ("replicate", 401, {"title": "Unauthenticated", "detail": "You did not pass a valid authentication token",
                        "status": 401}, ErrorKind.AUTH),
]


def reply_of(status: int, content: Any) -> Reply:
    return Reply(status, {}, json.dumps(content).encode())


def polled(name: str, *replies: tuple[int, Any]) -> JobStatus:
    """what a provider reads in the replies to one poll."""
    steps = PROVIDERS[name].poll("a/model", "a-job")
    next(steps)
    try:
        for status, content in replies:
            reply = reply_of(status, content)
            assert PROVIDERS[name].refusal(reply) is None
            steps.send(reply)
    except StopIteration as end:
        return end.value
    raise AssertionError("the poll asks on")


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_job_is_accepted_and_its_clip_is_found(name: str) -> None:
    status, content = SUBMITTED[name]
    assert PROVIDERS[name].refusal(reply_of(status, content)) is None
    assert PROVIDERS[name].accepted(reply_of(status, content)) in (
        "d66f959b", "8ba2926c", "f8837f29", "heat2o3b", "0b0f6a0e-5f0c-4d0b-9a58-5c0a7d3a8d11")
    result = [(200, {"video": {"url": CLIP, "content_type": "video/mp4"}, "seed": 7})] if name == "fal" else []
    assert polled(name, DONE[name], *result) == JobStatus(JobState.DOWNLOADING, LINKS.get(name, CLIP))


@pytest.mark.parametrize(("name", "content", "read"), POLLS)
def test_a_poll_is_read(name: str, content: dict[str, Any], read: JobStatus) -> None:
    assert polled(name, (200, content)) == read


@pytest.mark.parametrize(("name", "status", "content", "kind"), REFUSALS)
def test_a_refusal_is_read(name: str, status: int, content: dict[str, Any], kind: ErrorKind) -> None:
    error = PROVIDERS[name].refusal(reply_of(status, content))
    assert error.kind == kind
    said = content.get("error", content)
    assert (said.get("message") or said.get("msg") or said["detail"]) in str(error)


@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != OWN])
def test_published_answers_are_read(name: str) -> None:
    """Of schemas, prices, lists of jobs and uploads: each flow finds what it looks for among them."""
    provider, model = PROVIDERS[name], published.MODEL
    plan = plan_clip(RemoteModel(model, num_frames=(17, 161)), ClipRequest("a ball"), TRIM)
    found = {flow: [value for value in (value_of(provider, make) for make in makes) if value] for flow, makes in {
        "fields": [lambda: provider.fields(model)], "price": [lambda: provider.price(plan, {})],
        "history": [lambda: provider.history(model, 0.0)], "upload": [lambda: provider.upload(b"x", "image/png")],
    }.items()}
    assert found["fields"] and {"image", "image_url"} & found["fields"][0]
    assert bool(found["price"]) == (name != "replicate")
    entry = found["history"][0][0]
    assert (entry.remote_id, entry.model, entry.image_url) == ("a", model, f"{published.LINK}.png")
    assert 1.6e9 < entry.created < 1.8e9
    assert found["upload"] == [f"{published.LINK}.png"]


def value_of(provider: Provider, make: Callable[[], RequestFlow[Any]]) -> Any:
    """Return what a flow makes of published answers: of each, those tried that lead on, the last first."""
    def answered(sent: tuple[Any, ...]) -> Any:
        flow = make()
        try:
            request = next(flow)
            for content in sent:
                reply = reply_of(200, content)
                if request.json_answer and provider.refusal(reply) is not None:
                    return None
                request = flow.send(reply)
        except StopIteration as end:
            return end.value
        except RemoteError:
            return None
        if len(sent) == 2:
            return None
        return next(filter(None, (answered((*sent, more)) for more in published.PUBLISHED[provider.name])), None)

    return answered(())


def test_a_callback_of_replicate_is_verified() -> None:
    keys = read_secret({"key": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
    headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
               "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
    assert verify(WebhookRequest(headers, b'{"test": 2432232314}'), keys, 1614265330.0) == headers["webhook-id"]


def missing(real: Any, ours: Any, place: str = "") -> list[str]:
    """Fields of a real reply that ours has not, or has with another type; what a model takes and makes is its own."""
    if isinstance(real, dict) and isinstance(ours, dict):
        return [text for key, value in real.items() for text in (
            missing(value, ours[key], f"{place}.{key}") if key in ours else [f"{place}.{key}"])]
    same = real is None or ours is None or type(real) is type(ours) or {type(real), type(ours)} == {int, float}
    return [] if same or place.endswith((".input.prompt", ".output", ".logs")) else [f"{place}: {ours!r}"]


@pytest.mark.parametrize("name", SERVERS)
def test_loopback_providers_reply_as_the_real_ones(name: str, tmp_path: Path) -> None:
    with closing(SERVERS[name](tmp_path)) as server:
        server.script = Script(queued=0, running=0)
        Runner(tmp_path, server).make()
        for point, (status, real) in (("submit", SUBMITTED[name]), ("poll", DONE[name])):
            seen = server.asked(point)[-1]
            assert (seen.status, missing(real, json.loads(seen.answer))) == (status, []), point
