"""Another ComfyUI as a provider: LoRAs of this machine, no money, nothing made twice, who is asked when it fails."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.http.session import PIECE, Body
from pipeline.node_inputs import NodeInputs
from pipeline.remote.budget import Limits
from pipeline.remote.clip import resumed_clip
from pipeline.remote.errors import ErrorKind, NotAcceptedError, RemoteError
from pipeline.remote.job import JobState
from pipeline.remote.keys import KeyStore
from pipeline.remote.providers import PROVIDERS, find_target
from pipeline.remote.quote import quote
from pipeline.remote.run import resume
from pipeline.remote.settings import read_settings
from pipeline.remote.settings_page import known_keys, save_key, save_settings
from pipeline.request import ClipRequest, Lora, LoraSchedule
from tests.support.api_server import Answer, json_answer
from tests.support.faults import answer, reset
from tests.support.providers.comfyui import ComfyUIServer
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.wavespeed import WaveSpeedServer
from tests.support.runner import CLIP, OWN, PATIENT, Runner, picture

TITLE = PROVIDERS[OWN].title


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ComfyUIServer]:
    """Yield the user's own server alone; `runner` of conftest.py runs jobs there."""
    with closing(ComfyUIServer(tmp_path)) as server:
        server.script = Script(queued=0, running=0)
        yield server


@pytest.fixture
def hosted(tmp_path: Path) -> Iterator[WaveSpeedServer]:
    with closing(WaveSpeedServer(tmp_path)) as hosted:
        hosted.script = Script(queued=0, running=0)
        yield hosted


def safetensors(fill: int) -> bytes:
    """A file that a header's reader takes, with so many other bytes."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [fill], "data_offsets": [0, fill]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\7" * fill


# ---- LoRAs --------------------------------------------------------------------------------------------------------

def test_a_lora_of_this_machine_is_uploaded_once_and_links_are_passed_on(server: ComfyUIServer, runner: Runner,
                                                                        tmp_path: Path) -> None:
    file = tmp_path / "wan" / "style_high_noise.safetensors"
    file.parent.mkdir()
    file.write_bytes(safetensors(3 * PIECE))
    name, link = "wan/style_high_noise.safetensors", "https://weights.example/tint.safetensors"
    runner.change(find_lora=lambda source: file if source == name else None)
    mark = hashlib.sha256(file.read_bytes()).hexdigest()
    clip = ClipRequest("pan", num_frames=33, seed=1, loras=(
        Lora(name, 0.7, min_match=0.5, schedule=LoraSchedule(0.25, fade_out=0.5)),
        Lora(link, -1.5, "auto", sha256="0" * 64), Lora("https://weights.example/off.safetensors", 0)))
    delivery = runner.make(clip)
    sent = [{"url": f"upload:{mark}", "scale": 0.7, "expert": "high", "min_match": 0.5, "start_percent": 0.25,
             "fade_out": 0.5}, {"url": link, "scale": -1.5, "expert": "auto", "sha256": "0" * 64}]
    assert server.jobs[delivery.job.remote_id].inputs["loras"] == sent and not delivery.changes
    assert server.uploads[f"upload:{mark}"].data == file.read_bytes()
    (asked,) = [seen for seen in server.asked("has") if mark in seen.path]
    assert asked.status == 404 and len(server.asked("upload")) == 2, "the LoRA and the picture"
    runner.make(replace(clip, seed=2))
    assert len(server.asked("upload")) == 2, "both are there"
    file.write_bytes(safetensors(PIECE))
    assert runner.make(clip).job.id != delivery.job.id, "another file of the same name makes another clip"
    assert len(server.asked("upload")) == 3 and server.accepted == 3
    runner.make(replace(clip, loras=(replace(clip.loras[0], schedule=LoraSchedule(0.5)), *clip.loras[1:])))
    assert server.accepted == 4, "and so do other steps"


@pytest.mark.parametrize(("lora", "said"), [
    (Lora("nowhere.safetensors"), "is not a link"), (Lora("https://192.168.0.4/x.safetensors"), "can read it"),
    (Lora("http://weights.example/x.safetensors"), "only https"),
    (Lora("https://a.example/x.safetensors", 4.5), "choose -4 to 4")])
def test_a_lora_that_it_cannot_take_is_refused_first(server: ComfyUIServer, runner: Runner, lora: Lora,
                                                     said: str) -> None:
    with pytest.raises(ValueError, match=said):
        runner.make(ClipRequest("pan", loras=(lora,)))
    assert server.seen == []


def test_a_file_is_read_while_it_is_sent(tmp_path: Path) -> None:
    file, told = tmp_path / "file", []
    file.write_bytes(bytes(range(256)) * (PIECE // 100))
    body = Body(file, lambda: told.append(body.sent))
    pieces = list(body)
    assert b"".join(pieces) == file.read_bytes() and max(map(len, pieces)) == PIECE and len(pieces[-1]) == 1
    assert len(body) == file.stat().st_size and told == [False] and body.sent


# ---- no money -----------------------------------------------------------------------------------------------------

def test_no_limit_stops_what_costs_nothing(server: ComfyUIServer, hosted: WaveSpeedServer, tmp_path: Path) -> None:
    runner = Runner(tmp_path, server, hosted)
    runner.make(CLIP, runner.target(hosted))
    spent = runner.context.ledger.spent()
    assert spent > 0
    runner.change(limits=Limits(clip=0.0001, day=spent / 2))
    runner.set(budget=Limits(clip=0.0001, day=spent / 2))
    job = runner.make(CLIP, runner.target(server)).job
    assert (job.price, job.price_source) == (0.0, "on a server of your own") and runner.context.ledger.spent() == spent
    assert any("submitting, $0.000 (on a server of your own)" in text for text in runner.shown)
    inputs = NodeInputs({"provider": TITLE, "provider.model": "default", "prompt": "pan", "max_cost": 0.0001,
                         "max_cost_per_day": 0.0001, "num_frames": 33}, set())
    quoted = asyncio.run(quote(inputs, tmp_path / "own"))
    assert quoted.price == 0.0 and quoted.notes == () and len(quoted.warnings) == 1
    assert "There is no address of Another ComfyUI" in quoted.warnings[0]


def test_what_the_other_side_changes_is_told_also_when_it_is_resumed(server: ComfyUIServer, runner: Runner) -> None:
    server.warnings = ["resolution is 480p, but wan2.2-i2v-demo makes clips of 128x128."]
    done = runner.make()
    assert list(done.notes) == server.warnings
    _, report = asyncio.run(resumed_clip(done.job.short_id, "", runner.context))
    assert json.loads(report)["changed"] == server.warnings


def test_progress_is_told_as_the_other_side_tells_it(server: ComfyUIServer, runner: Runner) -> None:
    server.script = Script(queued=2, running=2)
    runner.make()
    said = "\n".join(runner.shown)
    assert f"{TITLE}: queued, place 3 in the queue" in said and f"{TITLE}: running (step 3 of 30, 41 s left)" in said


# ---- nothing is made twice ----------------------------------------------------------------------------------------

def test_a_job_of_unknown_outcome_is_submitted_again_by_its_key(server: ComfyUIServer, runner: Runner) -> None:
    """ComfyUI was killed between the request and its answer, and again while it asked anew."""
    server.fail("submit", reset(after=True), times=2)
    server.fail("submit", reset(), times=2)
    server.fail("history", answer(503, ""), times=PATIENT.attempts)
    with pytest.raises(RemoteError, match="the clip is found there, and not made a second time"):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.SUBMIT_UNKNOWN and server.accepted == 1
    runner.set(own_servers={"default": "http://127.0.0.1:9001"})
    with pytest.raises(RemoteError) as away:
        runner.make()
    assert away.value.kind == ErrorKind.SUBMIT_UNKNOWN and runner.context.ledger.get(job.id).sent
    runner.set(own_servers={"default": server.address})
    assert runner.make().job.id == job.id and server.accepted == 1
    assert {seen.headers["idempotency-key"] for seen in server.asked("submit")} == {job.id}
    assert len({seen.raw for seen in server.asked("submit")}) == 1


def test_a_job_of_unknown_outcome_is_found_without_its_workflow(server: ComfyUIServer, runner: Runner) -> None:
    """By its picture and its seed: Resume has neither picture nor prompts."""
    for seed in (6, 8):
        runner.make(replace(CLIP, seed=seed))
    server.fail("submit", reset(after=True), times=PATIENT.attempts)
    server.fail("history", answer(503, ""), times=PATIENT.attempts)
    with pytest.raises(RemoteError):
        runner.make()
    (job,) = runner.context.ledger.jobs((JobState.SUBMIT_UNKNOWN,))
    done = asyncio.run(resume(job, PROVIDERS[OWN], runner.context))
    assert server.jobs[done.job.remote_id].inputs["seed"] == CLIP.seed and server.accepted == 3


def test_the_other_side_restarts_with_its_api_off_and_on_again(server: ComfyUIServer, runner: Runner) -> None:
    """No job is lost over it, as one is of which there is no trace."""
    server.script = Script(queued=0, running=4)
    not_there = answer(404, {"error": {"code": "not_found", "message": "The API is off."}})
    server.fail("poll", not_there, times=8)
    server.fail("models", not_there, times=7, skip=1)  # it was on when the clip was asked for
    assert runner.make().job.state == JobState.DONE and server.accepted == 1
    assert any("does not serve this pack's API" in text for text in runner.shown)


def test_a_server_that_is_this_one_does_not_wait_for_itself(server: ComfyUIServer, runner: Runner) -> None:
    server.script = Script(queued=FOREVER)
    runner.change(waits_here=lambda remote_id: remote_id in server.jobs)
    with pytest.raises(RemoteError, match="is this ComfyUI itself"):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert server.jobs[job.remote_id].cancelled and job.state == JobState.CANCELED


# ---- what is wrong there ------------------------------------------------------------------------------------------

NOT_SERVED = f"{TITLE} does not serve this pack's API"


@pytest.mark.parametrize(("says", "kind", "said"), [
    (json_answer(404, {"error": {"code": "not_found", "message": "The API is off."}}), ErrorKind.VALIDATION,
     NOT_SERVED),
    (Answer(404, b"404: Not Found"), ErrorKind.VALIDATION, NOT_SERVED),
    (Answer(405, b"405: Method Not Allowed"), ErrorKind.VALIDATION, "rejected the request"),
    (json_answer(401, {"error": {"code": "unauthorized", "message": "There is no valid key."}}), ErrorKind.AUTH,
     "rejected the API key .401.. There is no valid key. Check it in Settings"),
    (json_answer(429, {"error": {"code": "queue_full", "message": "100 of this key wait."}}), ErrorKind.RATE_LIMIT,
     "100 of this key wait"),
    (json_answer(503, {"error": {"code": "unavailable", "message": "Its log says why."}}), ErrorKind.TRANSIENT,
     "Its log says why"),
], ids=["off", "no pack", "another thing", "key", "full", "unavailable"])
def test_a_server_that_does_not_serve_says_why_and_gets_nothing(
        server: ComfyUIServer, runner: Runner, says: Answer, kind: ErrorKind, said: str) -> None:
    server.says_to_all = says
    with pytest.raises(NotAcceptedError, match=said) as refused:
        runner.make()
    assert refused.value.kind == kind
    assert not [seen for seen in server.seen if seen.method == "POST" and seen.path.endswith("image-to-video")] or (
        kind in (ErrorKind.RATE_LIMIT, ErrorKind.TRANSIENT))
    server.says_to_all = None
    assert runner.make().job.state == JobState.DONE


def test_an_older_pack_and_an_unknown_model_are_told_before_anything_is_sent(server: ComfyUIServer,
                                                                             runner: Runner) -> None:
    server.fields_missing = frozenset({"last_image"})
    with pytest.raises(NotAcceptedError, match="older than this one: it takes no last_image"):
        runner.make(CLIP, last_picture=picture(200))
    with pytest.raises(NotAcceptedError, match=r"has no model .best.\. Choose one of default, wan2.2-i2v-demo, wan"):
        runner.make(CLIP, find_target(TITLE, "best", "default"))
    assert not server.asked("upload") and not server.asked("submit")
    other = runner.make(CLIP, find_target(TITLE, "wan2.2-i2v", "default"))
    assert server.jobs[other.job.remote_id].model == "wan2.2-i2v"


def test_without_an_address_nothing_is_asked(server: ComfyUIServer, runner: Runner) -> None:
    runner.set(own_servers={"another": server.address})
    with pytest.raises(NotAcceptedError, match=f"There is no address of {TITLE} in the profile 'default'"):
        runner.make()
    assert server.seen == []


# ---- who is asked next --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("trouble", ["not there", "key", "failed", "gone", "silent", "lost answer"])
def test_a_hosted_provider_is_asked_when_the_box_does_not_deliver(
        trouble: str, server: ComfyUIServer, hosted: WaveSpeedServer, tmp_path: Path) -> None:
    """Also after it has taken the job: that costs nothing. And a clip that is there is not asked for again."""
    runner = Runner(tmp_path, server, hosted)
    if trouble == "not there":
        runner.set(own_servers={"default": "http://127.0.0.1:9001"})
    elif trouble == "key":
        keys = {"WAVESPEED_API_KEY": hosted.key, "ANOTHER_COMFYUI_API_KEY": "wrong-key"}
        runner.change(keys=KeyStore(environ=keys))
    elif trouble == "failed":
        server.script = Script(queued=0, running=1, end="failed")
    elif trouble == "gone":
        server.fail("poll", answer(404, {"error": {"code": "not_found", "message": "No such one."}}), times=500)
    elif trouble == "silent":
        server.script = Script(queued=0, running=FOREVER)
        server.fail("poll", reset(), times=500)
        runner.change(timeouts=replace(PATIENT, outage=1.0))
    else:
        server.fail("submit", reset(after=True), times=100)
        server.fail("history", answer(503, ""), times=100)
    targets = (runner.target(server), runner.target(hosted))
    delivery = runner.make(CLIP, *targets)
    assert delivery.job.provider == "wavespeed" and hosted.accepted == 1
    assert any("Asking WaveSpeed instead." in text for text in runner.shown)
    asked = len(server.seen)
    assert runner.make(CLIP, *targets).job.id == delivery.job.id and len(server.seen) == asked
    runner.check()


def test_a_hosted_provider_is_not_asked_for_what_is_under_way_or_refused(
        server: ComfyUIServer, hosted: WaveSpeedServer, tmp_path: Path) -> None:
    runner = Runner(tmp_path, server, hosted)
    server.script = Script(queued=0, running=FOREVER)
    runner.change(timeouts=replace(PATIENT, deadline=60.0))
    with pytest.raises(RemoteError) as slow:
        runner.make(CLIP, runner.target(server), runner.target(hosted))
    assert slow.value.kind == ErrorKind.TIMEOUT and hosted.accepted == 0


# ---- settings -----------------------------------------------------------------------------------------------------

def test_a_key_is_for_the_address_it_was_saved_for(tmp_path: Path) -> None:
    def change(**settings: object) -> None:
        save_settings(tmp_path, json.dumps(settings).encode(), {})

    def has_key(profile: str) -> bool:
        return OWN in known_keys(tmp_path, {})["profiles"].get(profile, [])

    for profile in ("default", "work"):
        save_key(tmp_path, json.dumps({"profile": profile, "provider": OWN, "key": "wan22_0123456789"}).encode())
    change(own_servers={"default": "http://192.168.1.20:8188/", "work": "https://gpu.example"})
    assert has_key("default") and has_key("work"), "there was no address before"
    change(own_servers={"default": "http://192.168.1.20:8188/comfy", "work": "https://gpu.example"})
    assert has_key("default"), "the same server"
    change(own_servers={"default": "http://192.168.1.21:8188", "work": "https://gpu.example"})
    assert not has_key("default") and has_key("work")
    change(own_servers=None)
    assert has_key("work") and read_settings(tmp_path, {}).own_servers == {}


@pytest.mark.parametrize(("value", "said"), [
    ("http://a:8188", "takes an address for each profile"), ({"default": 5}, "takes an address for each profile"),
    ({"my profile": "http://gpubox:8188"}, "names a profile that cannot be"),
    ({"default": "http://169.254.169.254"}, "no server of your network"),
    ({"default": "gpubox:8188"}, "Write it as in")])
def test_addresses_that_may_not_be_are_refused(value: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        save_settings(tmp_path, json.dumps({"own_servers": value}).encode(), {})
    assert read_settings(tmp_path, {"WAN22_OWN_SERVER": "http://gpubox:8188"}).own_servers == {
        "default": "http://gpubox:8188"}
