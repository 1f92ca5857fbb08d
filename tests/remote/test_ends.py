"""Ends, bills and recovery of jobs at the real providers, as their clients and SDKs tell it."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.http import policy as http
from pipeline.remote import catalogue
from pipeline.remote.api import Reply
from pipeline.remote.budget import Limits
from pipeline.remote.clip import resumed_clip
from pipeline.remote.errors import ErrorKind, NotAcceptedError, RemoteError
from pipeline.remote.job import JobState
from pipeline.remote.plan import TRIM, plan_clip
from pipeline.remote.provider import JobStatus, RequestFlow
from pipeline.remote.providers import PROVIDERS, find_target
from pipeline.request import ClipRequest, Lora
from pipeline.video.probe import probe_video
from tests.support.api_server import ApiServer, Route, json_answer
from tests.support.faults import answer, reset
from tests.support.loopback import loopback_policy
from tests.support.providers.atlascloud import AtlasCloudServer
from tests.support.providers.fal import FalServer
from tests.support.providers.job import Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.providers.replicate import ReplicateServer
from tests.support.providers.wavespeed import WaveSpeedServer
from tests.support.runner import CLIP, OWN, Runner, picture

only = pytest.mark.parametrize
fal = only("server", ["fal"], indirect=True)
atlascloud = only("server", ["atlascloud"], indirect=True)
replicate = only("server", ["replicate"], indirect=True)
wavespeed = only("server", ["wavespeed"], indirect=True)


def told(name: str, *contents: Any, flow: RequestFlow[Any] | None = None) -> Any:
    """Return what a flow, a poll by default, returns once it has had these answers with status 200."""
    flow = flow or PROVIDERS[name].poll("a/model", "a-job")
    try:
        next(flow)
        for content in contents:
            flow.send(Reply(200, {}, json.dumps(content).encode()))
    except StopIteration as end:
        return end.value
    raise AssertionError("it asks on")


# ---- how a job ended ----------------------------------------------------------------------------------------------

@fal
@only("end", ["failed", "refused", "timeout", "downstream", "infrastructure"])
def test_a_failure_that_only_the_result_tells_is_an_end(server: FalServer, runner: Runner, end: str) -> None:
    """fal.ai: COMPLETED without an error, then 4xx or 5xx with fal's own body, some marked as retryable."""
    server.plan(Script(queued=0, running=0, end=end, silent=True))
    with pytest.raises(RemoteError) as caught:
        runner.make()
    assert caught.value.kind == (ErrorKind.POLICY if end == "refused" else ErrorKind.PROVIDER_FAILED)
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.FAILED and len(server.asked("result")) == 1
    assert runner.make().job.state == JobState.DONE, "and the request is not blocked by it"


@fal
def test_an_error_of_the_model_without_a_body_is_an_end_too(server: FalServer, runner: Runner) -> None:
    server.fail("result", answer(500, "Internal Server Error", {"x-fal-request-id": "1"}))
    with pytest.raises(RemoteError):
        runner.make()
    assert runner.context.ledger.jobs()[0].state == JobState.FAILED


@fal
def test_a_gateways_error_is_no_end(server: FalServer, runner: Runner) -> None:
    server.fail("result", answer(502, "<html>Bad Gateway</html>"), times=3)
    server.fail("result", answer(409))
    server.fail("result", answer(520, "<html>a proxy's own</html>"), times=2)
    server.fail("result", answer(400, {"detail": "Request is still in progress"}))
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


@only(("name", "data", "expected"), [
    ("atlascloud", {"status": "error", "message": "no capacity"}, JobStatus(JobState.FAILED, message="no capacity")),
    ("atlascloud", {"status": "rejected"}, JobStatus(JobState.FAILED)),
    ("atlascloud", {"status": "Canceled"}, JobStatus(JobState.CANCELED)),
    ("atlascloud", {"status": "failed", "error_code": 1, "error": "blocked by safety review"},
     JobStatus(JobState.FAILED, error_kind=ErrorKind.POLICY, message="blocked by safety review")),
    ("wavespeed", {"status": "failed", "code": 1200, "error": "Please try another prompt."},
     JobStatus(JobState.FAILED, error_kind=ErrorKind.POLICY, message="Please try another prompt.")),
    ("wavespeed", {"status": "failed", "code": 1402, "error": "The link cannot be reached."},
     JobStatus(JobState.FAILED, error_kind=ErrorKind.VALIDATION, message="The link cannot be reached.")),
])
def test_ends_and_their_kinds_by_the_providers_own_words(name: str, data: dict[str, Any], expected: JobStatus) -> None:
    assert told(name, {"code": 200, "data": data}) == expected
    failed = Reply(500, {}, json.dumps({"code": 500, "msg": "internal error", "data": data}).encode())
    assert name != "atlascloud" or PROVIDERS[name].refusal(failed) is None


@atlascloud
def test_a_new_job_may_be_called_a_bad_request(server: AtlasCloudServer, runner: Runner) -> None:
    server.fail("poll", answer(400, {"code": 400, "msg": "prediction is not ready", "data": None}), times=3)
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


# ---- waiting ------------------------------------------------------------------------------------------------------

def test_minutes_of_trouble_do_not_end_a_run(server: ProviderServer, runner: Runner) -> None:
    server.fail("poll", reset(), times=15)
    server.fail("poll", answer(503, "<html></html>"), times=15)
    server.fail("poll", answer(429, {"detail": "slow down"}, {"Retry-After": "0"}), times=5)
    assert runner.make().job.state == JobState.DONE and server.accepted == 1
    assert any("No answer since" in text for text in runner.shown), "the user is told meanwhile"


def test_time_in_the_queue_is_not_the_jobs(server: ProviderServer, runner: Runner) -> None:
    server.script = Script(queued=12, running=0)
    runner.change(timeouts=replace(runner.context.timeouts, deadline=0.0))
    assert runner.make().job.state == JobState.DONE


# ---- money --------------------------------------------------------------------------------------------------------

@atlascloud
@only("end", ["done", "empty"])
def test_a_bill_that_comes_late_is_read(server: AtlasCloudServer, runner: Runner, end: str) -> None:
    server.bill_late = True
    server.plan(Script(queued=0, running=0, end=end))
    with nullcontext() if end == "done" else pytest.raises(RemoteError, match="without a clip"):
        runner.make()
    ledger = runner.context.ledger
    (job,) = ledger.jobs()
    assert not job.price_source.startswith("billed")
    deadline = time.monotonic() + 60
    while not ledger.get(job.id).price_source.startswith("billed"):
        assert time.monotonic() < deadline, "the bill was never read"
        time.sleep(0.02)
    assert ledger.get(job.id).price == ledger.spent() == next(iter(server.jobs.values())).price


@replicate
@only(("end", "billed"), [("cancelled", True), ("failed", True), ("aborted", False)])
def test_what_a_provider_bills_without_a_clip_counts_as_spent(server: ReplicateServer, runner: Runner, end: str,
                                                              billed: bool) -> None:
    server.plan(Script(queued=0, running=0, end=end))
    with pytest.raises(RemoteError):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert (runner.context.ledger.spent() > 0) == billed
    assert ("estimate" in job.price_source) == billed
    assert server.asked("submit")[0].headers["cancel-after"] == "1h"


@only(("end", "spent"), [("failed", 0.0), ("done", 0.2)])
@wavespeed
def test_what_a_provider_gives_back_is_not_spent(server: WaveSpeedServer, runner: Runner, end: str, spent: float,
                                                 ) -> None:
    server.plan(Script(queued=0, running=0, end=end))
    if end == "failed":
        with pytest.raises(RemoteError):
            runner.make()
    else:
        runner.make()
    assert runner.context.ledger.spent() == spent


@only(("unit", "price"), [("seconds", 81 / 16 * 0.02), ("video", 0.02), ("compute seconds", None), ("5 seconds", None),
                          ("input seconds", None), ("video segments", None), (None, None)])
def test_a_unit_that_does_not_say_what_a_clip_costs_gives_no_price(unit: str | None, price: float | None) -> None:
    provider = PROVIDERS["fal"]
    plan = plan_clip(provider.models[0], CLIP, TRIM)
    assert provider.models[0].prices["480p"].usd(5.0) == pytest.approx(0.5), "its table goes first"
    with pytest.raises(StopIteration) as end:
        next(provider.price(plan, {}))
    assert end.value.value is None
    unlisted = plan_clip(type(provider.models[0])("a/model", num_frames=(17, 161), negative_prompt=True), CLIP, TRIM)
    answer_ = {"prices": [{"unit_price": 0.02, "unit": unit, "currency": "USD"}]}
    assert told("fal", answer_, flow=provider.price(unlisted, {})) == (price and pytest.approx(price))


# ---- what is sent, and found again --------------------------------------------------------------------------------

@only("name", PROVIDERS)
def test_of_every_size_of_every_model_something_counts(name: str) -> None:
    for model in PROVIDERS[name].models:
        assert model.free or set(model.resolutions) <= {*model.prices, *model.estimates}, model.id
        assert all(0 < low.usd(5) <= high.usd(5) for low, high in model.estimates.values())
    assert len({model.label for model in PROVIDERS[name].models}) == len(PROVIDERS[name].models)


@replicate
def test_without_a_price_the_highest_estimate_counts_and_limits_want_a_word(server: ReplicateServer, runner: Runner,
                                                                            ) -> None:
    target = runner.target(model=PROVIDERS["replicate"].models[1])
    runner.change(limits=Limits(clip=1.0))
    with pytest.raises(NotAcceptedError, match=r"by estimates it is \$0.152 to \$0.304. Accept") as caught:
        runner.make(CLIP, target)
    assert caught.value.kind == ErrorKind.BUDGET and not server.asked("upload")
    runner.set(accepted_estimates=(target.model.id,))
    assert runner.make(CLIP, target).job.price == pytest.approx(0.30375)
    runner.change(limits=Limits(clip=0.3))
    with pytest.raises(NotAcceptedError, match=r"costs \$0.304, more than max_cost"):
        runner.make(replace(CLIP, seed=2), target)
    runner.change(limits=Limits())
    runner.set(accepted_estimates=())
    runner.make(replace(CLIP, seed=3), target)
    assert runner.context.ledger.spent() == pytest.approx(2 * 0.30375)


@atlascloud
def test_a_bill_that_was_not_read_is_read_before_the_next_purchase(server: AtlasCloudServer, runner: Runner) -> None:
    """ComfyUI ended in the minutes between a clip and its bill."""
    ledger, done = runner.context.ledger, runner.make().job
    ledger.note_bill(done, 9.0, "an estimate")
    runner.change(limits=Limits(day=1.0))
    runner.make(replace(CLIP, seed=2))
    assert ledger.get(done.id).price == 0.25 and ledger.spent() == 0.5
    polls = len(server.asked("poll"))
    runner.make(replace(CLIP, seed=3))
    assert len(server.asked("poll")) == polls + 1, "a bill that was read stands"


@fal
def test_a_job_that_was_cancelled_may_be_billed(server: FalServer, runner: Runner) -> None:
    """fal.ai tells a runner to stop, and one that does not listen works on."""
    server.plan(Script(queued=0, running=0, end="cancelled"), Script(queued=0, running=0, end="failed"))
    for spent in (0.50625, 0.50625):
        with pytest.raises(RemoteError):
            runner.make()
        assert runner.context.ledger.spent() == pytest.approx(spent)


@fal
def test_fal_may_repeat_what_its_runner_lost(server: FalServer, runner: Runner) -> None:
    runner.make()
    assert "x-fal-no-retry" not in server.asked("submit")[0].headers and PROVIDERS["fal"].concurrent == 2


@atlascloud
def test_a_model_without_a_list_for_both_experts_gets_both(server: AtlasCloudServer, runner: Runner) -> None:
    lora = Lora("https://weights.example/tint.safetensors", 0.5, "both")
    runner.make(ClipRequest("a tint", loras=(lora,)), runner.target(model=PROVIDERS["atlascloud"].models[3]))
    inputs = next(iter(server.jobs.values())).inputs
    entry = [{"path": lora.source, "scale": 0.5}]
    assert inputs["high_noise_loras"] == inputs["low_noise_loras"] == entry and "loras" not in inputs


@only(("source", "sent"), [
    ("https://civitai.com/models/123", "https://civitai.com/models/123"), ("owner/repo", "owner/repo"),
    ("https://civitai.com/models/123?modelVersionId=7", "https://civitai.com/api/download/models/7"),
    ("https://huggingface.co/owner/repo", "owner/repo"),
])
def test_pages_of_loras_go_where_they_are_looked_up(source: str, sent: str, server: ProviderServer,
                                                    runner: Runner) -> None:
    clip = ClipRequest("pan", loras=(Lora(source, 0.5, "both"),))
    if server.provider in ("fal", "replicate"):
        if "civitai" in source:
            with pytest.raises(RemoteError, match=r"signed-in users alone.*Nothing was sent"):
                runner.make(clip)
        return
    runner.make(clip)
    (lora,) = next(iter(server.jobs.values())).inputs["loras"]
    if server.provider == OWN:  # which takes every link that the sampler takes
        assert lora["url"] == sent.replace("owner/repo", "https://huggingface.co/owner/repo/tree/main")
    else:
        assert lora == {"path": sent, "scale": 0.5}


class Hub(ApiServer):
    """huggingface.co, with one repository."""

    points = ("repository",)

    def __init__(self, folder: Path, *files: str) -> None:
        listed = {"siblings": [{"rfilename": file} for file in ("README.md", *files)]}
        self.routes = [Route("GET", "huggingface.co", r"/api/models/owner/repo/revision/\w+", "repository",
                             lambda request: json_answer(200, listed), open=True)]
        super().__init__(folder, ("huggingface.co",))


@only(("source", "files", "sent"), [
    ("owner/repo", ["pan_high_noise.safetensors"], "main/pan_high_noise.safetensors"),
    ("https://huggingface.co/owner/repo/tree/v2/wan", ["wan/pan_high_noise.safetensors", "other.safetensors"],
     "v2/wan/pan_high_noise.safetensors"),
    ("owner/repo@v2", ["a.safetensors", "b.safetensors"], "holds 2 safetensors files: a.safetensors, b.safetensors"),
    ("owner/repo", [], "holds no safetensors file"),
])
def test_the_file_of_a_repository_is_looked_up_for_who_does_not(source: str, files: list[str], sent: str,
                                                                server: ProviderServer, runner: Runner) -> None:
    if server.provider == OWN or (server.provider in ("wavespeed", "atlascloud") and source == "owner/repo"):
        return
    with closing(Hub(runner.folder, *files)) as hub:
        hosts = {**server.loopback(), **hub.loopback()}
        runner.change(policy=loopback_policy(http, hosts, str(hub.ca)))
        clip = ClipRequest("pan", loras=(Lora(source, 0.5),))
        if len(files) != 1 and "wan" not in source:
            with pytest.raises(NotAcceptedError, match=f"{sent}.*Nothing was bought"):
                runner.make(clip)
            assert not server.asked("upload") and not server.accepted
            return
        runner.make(clip)
        runner.make(clip)
        inputs = next(iter(server.jobs.values())).inputs
        assert f"https://huggingface.co/owner/repo/resolve/{sent}" in str(inputs)
        assert "lora_weights_transformer_2" not in inputs and "low_noise_loras" not in inputs, "its name tells which"
        assert len(hub.seen) == 1 and "authorization" not in hub.seen[0].headers


def test_one_answer_of_404_loses_no_paid_job(server: ProviderServer, runner: Runner) -> None:
    server.fail("poll", answer(404, {"code": 404, "message": "no such job", "detail": "Not Found"}), times=2)
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


def test_a_lost_job_counts_as_spent(server: ProviderServer, runner: Runner) -> None:
    server.fail("poll", answer(404, {"code": 404, "message": "no such job", "detail": "Not Found"}), times=500)
    runner.set(prices={runner.target().model.name("480p"): 0.4})
    with pytest.raises(RemoteError):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.LOST and runner.context.ledger.spent() == job.price
    assert (job.price == 0) == (server.provider == OWN)
    assert runner.context.ledger.attach(job, "another-id").price == job.price


def test_what_is_given_up_and_found_again_has_its_price_back(server: ProviderServer, runner: Runner) -> None:
    runner.set(prices={runner.target().model.name("480p"): 0.4})
    done = runner.make().job
    ledger = runner.context.ledger
    ledger.note_bill(done, done.summary["estimate"], "estimate")
    lost = ledger.give_up(ledger.reopen(done, remote_id="", state=JobState.SUBMIT_UNKNOWN))
    assert lost.price == 0.0 and ledger.spent() == 0.0
    assert ledger.attach(lost, done.remote_id).price == ledger.spent() == done.summary["estimate"]


@only("price", [0, -1, -0.5])
def test_a_price_of_nothing_is_no_price(price: float) -> None:
    data = {"price": 0.3, "discounted_price": price, "currency": "USD"}
    plan = plan_clip(PROVIDERS["wavespeed"].models[0], CLIP, TRIM)
    assert told("wavespeed", {"code": 200, "data": data}, flow=PROVIDERS["wavespeed"].price(plan, {})) == 0.3


def test_a_server_error_on_the_paid_request_is_not_taken_for_a_refusal(server: ProviderServer, runner: Runner) -> None:
    content = {"detail": "database is locked", "code": 500, "message": "database is locked", "msg": "locked"}
    server.fail("submit", answer(500, content, {"x-fal-retryable": "false"}, after=True))
    try:
        runner.make()
    except RemoteError as error:
        assert error.kind == ErrorKind.SUBMIT_UNKNOWN and not isinstance(error, NotAcceptedError)
    assert server.accepted == 1 and len(server.asked("submit")) == (2 if server.provider == OWN else 1)


@atlascloud
def test_a_job_whose_answer_was_lost_is_found_in_the_list(server: AtlasCloudServer, runner: Runner) -> None:
    """By the link of its picture, among others of the same model and minutes."""
    model = "atlascloud/wan-2.2/image-to-video-lora"
    server.accept(model, {"image": "https://pictures.example/another.png", "prompt": "a ball"})
    server.fail("submit", reset(after=True))
    done = runner.make().job
    assert done.state == JobState.DONE and done.remote_id == list(server.jobs)[-1] and server.accepted == 2


@only(("data", "price"), [({"price": "0.25", "estimated": True}, 0.25), ({"price": 1, "estimate_partial": True}, None),
                          ({"price": None}, None), ({"price": "0"}, None), ({"price": "free"}, None)])
def test_a_quote_that_is_not_whole_is_none(data: dict[str, Any], price: float | None) -> None:
    plan = plan_clip(PROVIDERS["atlascloud"].models[0], CLIP, TRIM)
    for answer_ in ({"code": 200, "data": data}, data):
        assert told("atlascloud", answer_, flow=PROVIDERS["atlascloud"].price(plan, {})) == price


@wavespeed
def test_a_strangers_job_of_the_same_minutes_is_not_taken(server: WaveSpeedServer, runner: Runner) -> None:
    """The account's list has the jobs of the web page too."""
    model = "wavespeed-ai/wan-2.2/i2v-480p-lora"
    server.accept(model, {"image": "https://static.wavespeed.ai/another.png", "prompt": "a ball"})
    server.fail("submit", reset())
    with pytest.raises(RemoteError) as caught:
        runner.make()
    assert caught.value.kind == ErrorKind.SUBMIT_UNKNOWN
    (job,) = runner.context.ledger.jobs()
    assert job.remote_id == ""


def test_replicate_forgets_pictures_after_an_hour() -> None:
    found = told("replicate", {"results": [
        {"id": "a", "model": "m", "created_at": "2026-11-01T10:00:00Z", "input": {}, "data_removed": True},
        {"id": "b", "model": "m", "created_at": "2026-11-01T10:00:00Z", "input": {"image": "https://a.example/b.png"}},
    ]}, flow=PROVIDERS["replicate"].history("m", 0.0))
    assert [entry.image_url for entry in found] == [None, "https://a.example/b.png"]


def test_the_list_of_models_is_asked_for_once_an_hour(server: ProviderServer, runner: Runner) -> None:
    catalogue.forget()
    runner.make()
    runner.make(ClipRequest("another", resolution="480p", num_frames=81))
    assert len(server.asked("models")) == 1 and server.accepted == 2


@only(("size", "models"), [("580p", {"fal": 0}), ("1080p", {"atlascloud": 3})])
def test_a_size_that_is_sold_is_bought_and_another_is_refused(size: str, models: dict[str, int], server: ProviderServer,
                                                              runner: Runner) -> None:
    clip = ClipRequest("a ball", resolution=size)
    if (number := models.get(server.provider)) is None:
        with pytest.raises(RemoteError, match=f"{size} is asked for. Nothing was sent"):
            runner.make(clip)
    else:
        runner.make(clip, runner.target(model=PROVIDERS[server.provider].models[number]))
        assert next(iter(server.jobs.values())).inputs["resolution"] == size


@only(("text", "said"), [
    ('{"shift": 5', "are not JSON"), ("[1]", "at most 20 names"), ('{"loras": []}', "neither a number"),
    ('{"seed": 3}', "the node sets itself"), ('{"enable_safety_checker": false}', "own checks stay"),
    ('{"no_such_thing": 1}', "has no no_such_thing"),
    ('{"enable_sync_mode": true}', "how the provider answers"), ('{"shift": NaN}', "neither a number"),
    ('{"negative_prompt": "blurry"}', "the node sets itself"),
    ('{"LAST": "https://pictures.example/a.png"}', "the node sets itself"),
    (json.dumps(dict.fromkeys(map("a{}".format, range(21)), 1)), "at most 20 names"),
    (json.dumps({"shift": "5" * 201}), "201 characters; 200 are allowed"),
])
def test_options_that_may_not_be_are_refused_before_anything_is_bought(text: str, said: str, server: ProviderServer,
                                                                       runner: Runner) -> None:
    provider = PROVIDERS[server.provider]
    with pytest.raises(RemoteError, match=said):
        text = text.replace("LAST", provider.models[0].last_image or "negative_prompt")
        runner.make(CLIP, find_target(provider.title, provider.models[0].id, "default", text))
    assert not server.asked("submit") and not server.asked("upload") and not server.asked("token")


@only(("server", "options", "frames"), [("fal", '{"interpolator_model": "film"}', 161),
                                        ("replicate", '{"interpolate_output": true}', 151)], indirect=["server"])
def test_frames_that_a_provider_puts_between_are_kept(server: ProviderServer, runner: Runner, options: str,
                                                      frames: int) -> None:
    """81 frames at 16 a second are 5 s at any rate."""
    provider = PROVIDERS[server.provider]
    done = runner.make(CLIP, find_target(provider.title, provider.models[0].id, "default", options))
    path, _ = asyncio.run(resumed_clip(done.job.short_id, "", runner.context))
    assert probe_video(path).frames == frames and probe_video(path).rate in (30, 32)


@fal
def test_options_are_sent_and_make_another_clip_as_a_last_picture_does(server: FalServer, runner: Runner) -> None:
    provider = PROVIDERS["fal"]
    options = '{"acceleration": "none", "shift": 4, "enable_prompt_expansion": true}'
    target = find_target(provider.title, provider.models[0].id, "default", options)
    listed = runner.make(CLIP).job.price
    assert runner.make(CLIP, target).job.price == 2 * listed > 0, "the list knows nothing of options: the most counts"
    runner.make(CLIP, target)
    plain, other = server.jobs.values()
    assert "shift" not in plain.inputs
    assert json.loads(options).items() <= other.inputs.items()
    for last in (picture(200), picture(90)):
        runner.make(CLIP, last_picture=last)
        assert server.uploads[list(server.jobs.values())[-1].inputs["end_image_url"]].data == last.data
    assert server.accepted == 4
