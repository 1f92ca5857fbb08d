"""The webhook's route in the real ComfyUI, where nothing polls for hours unless a callback says so."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.remote.job import Job, JobState
from pipeline.remote.ledger import Ledger
from tests.support.comfy_outside import PICTURE, PUBLIC, Outside, remote_node
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.webhook_keys import Callback, SigningKey


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with Outside(tmp_path_factory.mktemp("webhook") / "outside", pace=10_000.0) as outside:
        public(outside, True)
        keys = {"profiles": {"default": {name: server.key for name, server in outside.providers.items()}}}
        store = outside.own / "keys.json"
        store.touch(0o600)
        store.write_text(json.dumps(keys))
        yield outside
        outside.check()


def public(outside: Outside, on: bool) -> None:
    outside.own.mkdir(exist_ok=True)
    (outside.own / "remote.json").write_text(json.dumps({"public_url": PUBLIC if on else ""}))


def deliver(outside: Outside, callback: Callback, path: str | None = None) -> int:
    """Bring a callback to where a tunnel would; returns the status."""
    path = path or callback.url.removeprefix(PUBLIC)
    request = urllib.request.Request(outside.server.url + path, callback.body, callback.headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def job_of(outside: Outside, name: str) -> Job:
    ledger = Ledger(outside.own)
    while not (found := [job for job in ledger.jobs((JobState.QUEUED,)) if job.provider == name]):
        time.sleep(0.05)
    return found[0]


@pytest.mark.parametrize("name", ["wavespeed", "atlascloud", "fal", "replicate"])
def test_callback_ends_a_run(name: str, outside: Outside) -> None:
    provider = outside.providers[name]
    provider.script = Script(running=FOREVER)
    prompt = outside.comfy.submit({"picture": PICTURE, "clip": remote_node(name, 1), "report": {
        "class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}})
    theirs = provider.jobs[job_of(outside, name).remote_id]
    theirs.script = Script()
    provider.finish(theirs)
    callback = provider.callback(theirs)
    forged = Callback(callback.url, callback.headers, callback.body + b" ")
    assert deliver(outside, forged) == 401
    assert not provider.asked("poll")
    assert deliver(outside, callback) == 200
    assert outside.comfy.follow(prompt).outcome == "execution_success"
    assert deliver(outside, callback) == 200
    assert deliver(outside, provider.callback(theirs), f"/api{callback.url.removeprefix(PUBLIC)}") == 200
    assert len(provider.asked("poll")) == provider.accepted == 1


def test_what_the_route_refuses(outside: Outside) -> None:
    provider = outside.providers["fal"]
    theirs = provider.accept(next(iter(provider.models)), {"prompt": "a", "num_frames": 81}, webhook=PUBLIC)
    ledger = Ledger(outside.own)
    ours = ledger.get_or_create(Job("", "fal", theirs.model, "default", "x"))
    ours = ledger.update(ours, remote_id=theirs.id, sent=True, state=JobState.RUNNING)
    callback = provider.callback(theirs)
    path = f"/wan22/webhook/fal/{ours.id}"
    assert deliver(outside, callback, "/wan22/webhook/fal/none") == 404
    assert deliver(outside, callback, f"/wan22/webhook/wavespeed/{ours.id}") == 404
    assert deliver(outside, callback, f"/wan22/webhook/..%2fkeys/{ours.id}") == 404
    assert deliver(outside, provider.callback(theirs, key=SigningKey("fal-key-1")), path) == 401
    assert deliver(outside, provider.callback(theirs, at=int(time.time()) - 400), path) == 401
    assert deliver(outside, Callback("", callback.headers, b"x" * (2**20 + 1)), path) == 413
    assert deliver(outside, Callback("", {}, b"{}"), path) == 401
    public(outside, False)
    assert deliver(outside, callback, path) == 404
    public(outside, True)
    assert deliver(outside, callback, path) == 200
    ledger.give_up(ours)


def test_log_holds_no_secret(outside: Outside) -> None:
    log = Path(outside.server.log).read_text("utf-8", errors="replace")
    for provider in outside.providers.values():
        assert provider.key not in log
        assert getattr(provider, "webhook_secret", provider.key).removeprefix("whsec_") not in log
    assert "Traceback" not in log
