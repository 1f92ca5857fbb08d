"""One clip at each provider: what is sent, what comes back, and what every fault on the way does to it.

The servers are strict: they refuse unknown fields, wrong authorisation, and a key that reaches a file host.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest

from pipeline.http import policy as http
from pipeline.lora.expert import choose_expert
from pipeline.lora.names import Style
from pipeline.lora.probe import LoraFacts
from pipeline.remote.budget import Cost, Limits
from pipeline.remote.clip import resumed_clip
from pipeline.remote.database import writing
from pipeline.remote.errors import ErrorKind, NotAcceptedError, RemoteError, RunEndedError
from pipeline.remote.job import Job, JobState
from pipeline.remote.providers import PROVIDERS, Target
from pipeline.remote.request import request_digest
from pipeline.remote.run import plan_targets, resume
from pipeline.request import ClipRequest, Lora
from pipeline.video.probe import probe_video
from tests.support.faults import (
    answer,
    chain,
    cut,
    delay,
    drip,
    endless,
    hold,
    malformed,
    redirect,
    reset,
    shortened,
    wrong_type,
)
from tests.support.loopback import loopback_policy
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.runner import CLIP, LORA, OWN, PATIENT, SERVERS, Runner, Stopped, picture

HIDES_HISTORY = ("atlascloud",)
"""Providers whose list of jobs cannot be read in some tests."""
CANCELS = ("fal", "replicate", OWN)


paid = pytest.mark.parametrize("server", [name for name in SERVERS if name != OWN], indirect=True)


def refused(runner: Runner, kind: ErrorKind, *said: str, clip: ClipRequest = CLIP) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        runner.make(clip)
    assert caught.value.kind == kind, caught.value
    for words in said:
        assert words in str(caught.value)
    return caught.value


def models() -> list[tuple[str, int]]:
    return [(name, number) for name in SERVERS for number in range(len(PROVIDERS[name].models))]


def test_nobody_is_given_a_model_for_adults_who_did_not_choose_it() -> None:
    assert all(adapter.models[0].loras and "spicy" not in adapter.models[0].id for adapter in PROVIDERS.values())


@pytest.mark.parametrize(("name", "number"), models())
@pytest.mark.parametrize(("resolution", "num_frames"), [("480p", 33), ("720p", 81)])
def test_every_model_makes_a_clip(name: str, number: int, resolution: str, num_frames: int, tmp_path: Path) -> None:
    with closing(SERVERS[name](tmp_path)) as server:
        runner, model = Runner(tmp_path, server), PROVIDERS[name].models[number]
        loras = (LORA, Lora("https://weights.example/tint.safetensors", 1.0)) if model.loras > 1 else (
            LORA,) if model.loras else ()
        clip = ClipRequest("a tint", "blurry", loras, resolution, num_frames, 50, 7.5, 11)
        last = picture(200) if model.last_image else None
        delivery = runner.make(clip, runner.target(model=model), last_picture=last)
        facts = probe_video(delivery.path)
        assert delivery.job.state == JobState.DONE and facts.codec == "h264" and facts.frames >= num_frames
        (job,) = server.jobs.values()
        assert job.inputs["prompt"] == "a tint" and job.inputs["seed"] == 11
        assert str(job.inputs).count("tint.safetensors") == (
            0 if model.loras < 2 else 2 if name == "replicate" or not model.loras_for_both else 1)
        assert not model.loras or LORA.source in str(job.inputs)
        if last:
            assert server.uploads[job.inputs[model.last_image]].data == last.data
        else:
            with pytest.raises(RemoteError, match="takes no last_image"):
                runner.make(clip, runner.target(model=model), last_picture=picture(200))
        assert delivery.job.price is None or delivery.job.price > 0 or (name == OWN and delivery.job.price == 0)
        sent = set(job.inputs) & {"num_inference_steps", "sample_steps", "guidance_scale", "negative_prompt"}
        assert len(delivery.notes) + len(sent) >= 3, "what is not sent is said"
        runner.check()


def test_a_lora_reaches_the_expert_it_is_for(server: ProviderServer, runner: Runner) -> None:
    high, low = (Lora(f"https://weights.example/{x}.safetensors", 0.5, x) for x in ("high", "low"))
    runner.make(ClipRequest("pan", loras=(high, low)))
    (job,) = server.jobs.values()
    expected = {
        "wavespeed": {"high_noise_loras": [{"path": high.source, "scale": 0.5}],
                      "low_noise_loras": [{"path": low.source, "scale": 0.5}]},
        "fal": {"loras": [{"path": high.source, "scale": 0.5, "transformer": "high"},
                          {"path": low.source, "scale": 0.5, "transformer": "low"}]},
        "replicate": {"lora_weights_transformer": high.source, "lora_scale_transformer": 0.5,
                      "lora_weights_transformer_2": low.source, "lora_scale_transformer_2": 0.5},
    }
    expected["atlascloud"] = expected["wavespeed"]
    expected[OWN] = {"loras": [{"url": high.source, "scale": 0.5, "expert": "high"},
                               {"url": low.source, "scale": 0.5, "expert": "low"}]}
    assert expected[server.provider].items() <= job.inputs.items()


@pytest.mark.parametrize(("link", "expert"), [
    ("high/pan_low_noise.safetensors", "low"), ("wan/pan%20HIGH.safetensors?sig=low_noise", "high"),
    ("high_noise/pan.safetensors", "high"), ("a.safetensors?for=high_noise", None),
])
def test_the_expert_of_auto_is_the_one_that_a_sampler_here_reads_in_the_name(link: str, expert: str | None) -> None:
    facts = LoraFacts("", Style.COMFYUI, (), None, {}, frozenset(), None, 0, None, "")
    clip = ClipRequest("pan", loras=(Lora(f"https://weights.example/{link}"),))
    target = Target(PROVIDERS["fal"], PROVIDERS["fal"].models[0], "default")
    # Nothing of it is changed, so that strict passes.
    (plan,) = plan_targets([target], clip, "trim", True, lambda source: None)
    (sent,) = plan.loras
    assert sent[2] == choose_expert(facts, unquote(link.partition("?")[0]), {})[0] == (expert or "both")
    assert [f"{expert}-noise expert" in note for note in plan.inferred] == ([True] if expert else [])


def test_the_same_request_is_bought_once(server: ProviderServer, runner: Runner) -> None:
    first, again = runner.make(), runner.make()
    assert first.path == again.path and server.accepted == 1
    asked = len(server.seen)
    runner.make()
    assert len(server.seen) == asked, "a finished clip is handed out without a word to anybody"
    runner.make(ClipRequest(CLIP.prompt, seed=8))
    assert server.accepted == 2


def test_what_only_checks_a_lora_buys_nothing_anew(server: ProviderServer, runner: Runner) -> None:
    first = runner.make(replace(CLIP, loras=(LORA,)))
    silent = Lora("https://weights.example/none.safetensors", 0.0)
    again = runner.make(replace(CLIP, loras=(replace(LORA, sha256="0" * 64, min_match=0.5), silent)))
    assert first.path == again.path and server.accepted == 1
    assert any("your sha256 and min_match" in note for note in again.notes) == (server.provider != OWN)
    assert not any("sha256" in note for note in first.notes)
    runner.make(replace(CLIP, loras=(replace(LORA, scale=0.5),)))
    assert server.accepted == 2


def test_the_digests_of_earlier_ledgers_are_found_again() -> None:
    clip = ClipRequest("pan", loras=(Lora("https://weights.example/a.safetensors"),))
    assert request_digest(clip, b"picture") == "e9099627a2f97cadbe18e99d8133c523100a3519ec79a381a60fa21908c952ca"


def test_a_file_that_was_deleted_is_fetched_again(server: ProviderServer, runner: Runner) -> None:
    runner.make().path.unlink()
    assert probe_video(runner.make().path).frames >= 80
    assert server.accepted == 1


@pytest.mark.parametrize("chosen", ["trim", "keep"])
def test_a_resumed_clip_is_as_long_as_was_chosen_when_it_was_bought(chosen: str, tmp_path: Path) -> None:
    with closing(SERVERS["wavespeed"](tmp_path)) as server:
        runner = Runner(tmp_path, server)
        job = runner.make(ClipRequest("pan", num_frames=33), longer_clips=chosen).job
        path, _ = asyncio.run(resumed_clip(job.short_id, "", runner.context))
        assert probe_video(path).frames == (33 if chosen == "trim" else 81)
        runner.context.ledger.update(job, summary={"num_frames": 33})
        path, _ = asyncio.run(resumed_clip(job.short_id, "", runner.context))
        assert probe_video(path).frames == 33


def test_a_job_is_asked_after_with_the_key_that_bought_it(server: ProviderServer, runner: Runner) -> None:
    """Another profile is another account, which would say that there is no such job."""
    server.script = Script(queued=0, running=FOREVER)
    runner.change(timeouts=replace(PATIENT, deadline=60.0))
    refused(runner, ErrorKind.TIMEOUT)
    server.finish(next(iter(server.jobs.values())))
    next(iter(server.jobs.values())).script = Script(queued=0, running=0)
    assert runner.make(CLIP, replace(runner.target(), profile="another")).job.state == JobState.DONE
    assert server.accepted == 1


def test_two_nodes_with_the_same_request_share_one_job(server: ProviderServer, runner: Runner) -> None:
    from pipeline.remote.run import make_clip

    async def both() -> list:
        return await asyncio.gather(*(make_clip([runner.target()], CLIP, picture(), runner.context) for _ in range(4)))

    assert len({delivery.path for delivery in asyncio.run(both())}) == 1
    assert server.accepted == 1


@pytest.mark.parametrize("retry_after", [None, "1", "Wed, 21 Oct 2099 07:28:00 GMT", "99999999999", "soon", "-4"])
def test_too_many_requests_is_waited_out(server: ProviderServer, runner: Runner, retry_after: str | None) -> None:
    headers = {"Retry-After": retry_after} if retry_after else {}
    server.fail("submit", answer(429, {"code": 429, "message": "slow down", "detail": "slow down"}, headers), times=2)
    runner.make()
    assert server.accepted == 1 and len(server.asked("submit")) == 3


def test_too_many_requests_for_too_long_is_told_and_nothing_is_owed(server: ProviderServer, runner: Runner) -> None:
    server.fail("submit", answer(429, {"code": 429, "message": "slow down"}), times=100)
    error = refused(runner, ErrorKind.RATE_LIMIT)
    assert isinstance(error, NotAcceptedError)
    assert len(server.asked("submit")) == PATIENT.attempts and server.accepted == 0
    assert [job.state for job in runner.context.ledger.jobs()] == [JobState.FAILED]


POLL_FAULTS = {
    "500": answer(500, "oops"), "502 page": answer(502, "<html>Bad Gateway</html>"), "503": answer(503, ""),
    "429": answer(429, {"code": 429, "message": "slow", "detail": "slow"}), "reset": reset(), "cut": cut(),
    "malformed": malformed(), "a list": wrong_type(), "a page": answer(200, "<html>maintenance</html>"),
}


@pytest.mark.parametrize("fault", POLL_FAULTS)
def test_a_poll_that_fails_is_repeated(server: ProviderServer, runner: Runner, fault: str) -> None:
    server.script = Script(queued=1, running=1)
    server.fail("poll", POLL_FAULTS[fault], times=3)
    assert runner.make().job.state == JobState.DONE
    assert server.accepted == 1 and len(server.asked("submit")) == 1


def test_a_provider_that_stays_away_leaves_the_job_to_be_resumed(server: ProviderServer, runner: Runner) -> None:
    server.fail("poll", reset(), times=2)
    runner.change(timeouts=replace(PATIENT, outage=0.0))
    error = refused(runner, ErrorKind.TRANSIENT, "continues there")
    assert not isinstance(error, NotAcceptedError), "no other provider may be asked"
    runner.change(timeouts=PATIENT)
    assert runner.make().job.state == JobState.DONE
    assert server.accepted == 1


@pytest.mark.parametrize("fault", [answer(200, "not JSON", after=True), wrong_type(), malformed(), reset(after=True),
                                   cut(0.3), answer(502, "<html>Bad Gateway</html>", after=True),
                                   answer(200, {"code": 200, "data": {}}, after=True), delay(FOREVER), endless()],
                         ids=["text", "list", "malformed", "reset", "cut", "502", "no id", "too late", "endless"])
def test_a_submit_without_a_usable_answer_is_never_repeated(server: ProviderServer, runner: Runner, fault) -> None:
    """It is looked for in the provider's history, where there is one; else the user is told, and a re-run too."""
    runner.change(timeouts=replace(PATIENT, submit=1.0))
    server.fail("submit", fault)
    if server.provider not in HIDES_HISTORY:
        assert runner.make().job.state == JobState.DONE
    else:
        server.fail("history", answer(403, {"code": 403, "msg": "forbidden"}), times=2)
        error = refused(runner, ErrorKind.SUBMIT_UNKNOWN, "not sent again by itself")
        assert not isinstance(error, NotAcceptedError)
        refused(runner, ErrorKind.SUBMIT_UNKNOWN)
        (job,) = runner.context.ledger.jobs()
        found = runner.context.ledger.attach(job, next(iter(server.jobs)))
        assert asyncio.run(resume(found, PROVIDERS[server.provider], runner.context)).job.state == JobState.DONE
    assert server.accepted == 1 and len(server.asked("submit")) == (2 if server.provider == OWN else 1)


def test_a_submit_that_was_never_taken_stays_unknown(server: ProviderServer, runner: Runner) -> None:
    """The connection breaks off after the request, and the provider has nothing: nobody can tell that from outside."""
    server.fail("submit", reset())
    if server.provider == OWN:  # where it may be repeated
        assert runner.make().job.state == JobState.DONE and server.accepted == 1
        return
    refused(runner, ErrorKind.SUBMIT_UNKNOWN)
    assert server.accepted == 0 and len(server.asked("submit")) == 1
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.SUBMIT_UNKNOWN
    runner.context.ledger.give_up(job)
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


def test_a_model_that_is_gone_was_not_bought_and_may_be_asked_elsewhere(server: ProviderServer, runner: Runner) -> None:
    server.fail("submit", answer(404, {"detail": "Not Found"}))
    said = "does not serve this pack's API" if server.provider == OWN else "no longer offers this model"
    assert isinstance(refused(runner, ErrorKind.VALIDATION, said), NotAcceptedError)
    assert server.accepted == 0


def test_an_acceptance_that_the_disk_did_not_take_is_not_paid_twice(server: ProviderServer, runner: Runner) -> None:
    ledger = runner.context.ledger
    with writing(ledger.folder) as base:
        base.execute("CREATE TRIGGER full BEFORE UPDATE ON jobs WHEN OLD.state = 'submitting' AND NEW.state = 'queued' "
                     "BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END")
    if server.provider not in HIDES_HISTORY:
        assert runner.make().job.state == JobState.DONE
    else:
        server.fail("history", answer(403, {"code": 403, "msg": "forbidden"}), times=2)
        refused(runner, ErrorKind.SUBMIT_UNKNOWN, "Resume Remote Clip")
        refused(runner, ErrorKind.SUBMIT_UNKNOWN, "Resume Remote Clip")
    assert server.accepted == 1


def test_a_provider_that_cannot_be_reached_is_not_paid(runner: Runner, server: ProviderServer) -> None:
    hosts = dict.fromkeys(server.loopback(), ("127.0.0.1", 9))
    runner.set(own_servers={"default": "http://127.0.0.1:9001"})  # where nothing listens
    runner.change(policy=loopback_policy(http, hosts, str(server.ca)))
    error = refused(runner, ErrorKind.TRANSIENT, "cannot be reached")
    assert isinstance(error, NotAcceptedError) and server.seen == []


GOOD = ("done", "objects", "list", "succeeded")
"""Ends with a clip, in the forms in which its link comes."""


@pytest.mark.parametrize(("server", "end"), [(name, end) for name, server in SERVERS.items() for end in server.ends],
                         indirect=["server"])
def test_a_job_that_fails_says_why_and_may_be_bought_anew(server: ProviderServer, runner: Runner, end: str) -> None:
    server.plan(Script(queued=0, running=0, end=end))
    if end in GOOD:
        assert runner.make().job.state == JobState.DONE
        return
    kinds = {"refused": ErrorKind.POLICY, "image": ErrorKind.VALIDATION}
    error = refused(runner, kinds.get(end[:7], ErrorKind.PROVIDER_FAILED))
    assert not isinstance(error, NotAcceptedError), "it was accepted: no other provider is asked by itself"
    assert len(str(error)) > 40
    (job,) = runner.context.ledger.jobs()
    states = {"cancelled": JobState.CANCELED, "deleted": JobState.LOST} if server.provider != "fal" else {}
    assert job.state == states.get(end, JobState.FAILED) and job.error == str(error)
    assert runner.make().job.state == JobState.DONE and server.accepted == 2


def test_a_status_that_nobody_knows_is_waited_through(server: ProviderServer, runner: Runner) -> None:
    server.script = Script(queued=0, running=3, word="reticulating")
    assert runner.make().job.state == JobState.DONE
    assert any("reticulating" in text for text in runner.shown)


def test_a_job_that_hangs_is_given_back_with_its_id(server: ProviderServer, runner: Runner) -> None:
    server.script = Script(queued=0, running=FOREVER)
    runner.change(timeouts=replace(PATIENT, deadline=60.0))
    error = refused(runner, ErrorKind.TIMEOUT, "run again")
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.TIMED_OUT and job.short_id in str(error)
    server.finish(next(iter(server.jobs.values())))
    next(iter(server.jobs.values())).script = Script(queued=0, running=0)
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


def test_a_new_job_that_the_status_call_does_not_know_yet(tmp_path: Path) -> None:
    with closing(SERVERS["atlascloud"](tmp_path)) as server:
        server.script = Script(missing=3, queued=0, running=0)
        assert Runner(tmp_path, server).make().job.state == JobState.DONE


DOWNLOAD_FAULTS = {
    "shortened": shortened(0.5), "cut": cut(0.5), "page": answer(200, "<html>Sign in</html>"),
    "500": answer(500, "oops"), "reset": reset(), "empty": answer(200, b""),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
def test_a_clip_that_does_not_arrive_whole_is_fetched_again(server: ProviderServer, runner: Runner,
                                                            fault: str) -> None:
    server.cdn.fail("download", DOWNLOAD_FAULTS[fault], times=2)
    assert probe_video(runner.make().path).frames >= 80
    assert server.accepted == 1
    assert [path.suffix for path in runner.context.results.iterdir()] == [".mp4"], "no half file stays"


def test_a_clip_that_comes_too_slowly_is_fetched_again(tmp_path: Path) -> None:
    with closing(SERVERS["fal"](tmp_path)) as server:
        runner = Runner(tmp_path, server)
        runner.change(timeouts=replace(PATIENT, download=5.0))
        server.cdn.fail("download", drip(20))
        assert runner.make().job.state == JobState.DONE and len(server.cdn.asked("download")) == 2


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with closing(SERVERS["fal"](tmp_path)) as server:
        runner = Runner(tmp_path, server)
        server.cdn.fail("download", shortened(), times=4)
        refused(runner, ErrorKind.INTEGRITY, "paid")
        (job,) = runner.context.ledger.jobs()
        old, new = (runner.context.results / f".{job.provider}_{job.short_id}.{n}.arriving.mp4"
                    for n in ("0123", "4567"))
        for left in (old, new):
            left.write_bytes(b"half")
        os.utime(old, (0, 0))
        assert runner.make().job.state == JobState.DONE
        assert not old.exists() and new.exists()


def test_a_clip_that_never_arrives_is_still_there_for_the_next_run(server: ProviderServer, runner: Runner) -> None:
    server.cdn.fail("download", shortened(), times=4)
    refused(runner, ErrorKind.INTEGRITY, "still at" if server.provider == OWN else "paid and still at", "run again")
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


def test_an_endless_clip_ends(server: ProviderServer, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.remote.result.MAX_CLIP", 2**20)
    server.cdn.fail("download", endless(b"\0" * 2**16), times=100)
    refused(runner, ErrorKind.INTEGRITY, "MB")


@pytest.mark.parametrize("expired", [1, 50])
def test_a_link_that_expired_is_asked_for_once_more(server: ProviderServer, runner: Runner, expired: int) -> None:
    server.script = Script(queued=0, running=0, expired=expired)
    if expired == 1:
        assert runner.make().job.state == JobState.DONE
    else:
        refused(runner, ErrorKind.DOWNLOAD_EXPIRED, "still at", "run again")
        (job,) = runner.context.ledger.jobs()
        runner.context.ledger.update(job, submitted=time.time() - 25 * 3600)
        refused(runner, ErrorKind.DOWNLOAD_EXPIRED, "gone")
    assert server.accepted == 1


@pytest.mark.parametrize("target", ["https://127.0.0.1/x.mp4", "https://169.254.169.254/latest/meta-data",
                                    "https://[::1]/x.mp4", "file:///etc/passwd", "http://a.example/x.mp4"])
@pytest.mark.parametrize("hops", [0, 2])
def test_a_redirect_into_this_machine_is_refused(server: ProviderServer, runner: Runner, target: str,
                                                 hops: int) -> None:
    server.cdn.fail("download", chain(hops, target) if hops else redirect(target), times=20)
    refused(runner, ErrorKind.REFUSED_HERE)


def test_a_redirect_of_an_api_is_not_followed(server: ProviderServer, runner: Runner) -> None:
    server.fail("submit", redirect("https://elsewhere.example/submit", 307), times=10)
    with pytest.raises(RemoteError):
        runner.make()
    assert server.accepted == 0 and len(server.asked("submit")) == 1


def test_a_wrong_key_and_no_key(server: ProviderServer, runner: Runner) -> None:
    variable = PROVIDERS[server.provider].variables[0]
    runner.change(keys=runner.context.keys.__class__(environ={}))
    error = refused(runner, ErrorKind.AUTH, variable, "Nothing was sent")
    assert server.seen == []
    runner.change(keys=runner.context.keys.__class__(environ={variable: "wrong-key-0123456789"}))
    error = refused(runner, ErrorKind.AUTH, "key" if server.provider != "replicate" else "token")
    assert isinstance(error, NotAcceptedError) and "wrong-key" not in str(error) and server.accepted == 0


def test_a_refusal_where_no_key_went_is_not_the_keys_fault(server: ProviderServer, runner: Runner) -> None:
    """A file store whose ticket has run out, a published schema behind a wall against robots."""
    server.fail("models", answer(403, "<html>"))
    if server.provider in ("fal", "atlascloud"):  # they publish it to everybody
        assert runner.make().job.state == JobState.DONE
    else:
        refused(runner, ErrorKind.AUTH, "rejected")
    if server.provider == "wavespeed":
        server.fail("upload_data", answer(403, "<Error/>"))
        error = refused(runner, ErrorKind.PROVIDER_FAILED, "uploads.", "does not use your key")
        assert isinstance(error, NotAcceptedError)


@paid
def test_no_balance(server: ProviderServer, runner: Runner) -> None:
    server.balance = 0.0
    error = refused(runner, ErrorKind.QUOTA)
    assert isinstance(error, NotAcceptedError) and server.accepted == 0


@paid
def test_limits_stop_before_anything_of_the_clip_leaves(server: ProviderServer, runner: Runner) -> None:
    runner.change(limits=Limits(clip=0.001))
    clip = ClipRequest("a red square", negative_prompt="a blue one")
    refused(runner, ErrorKind.BUDGET, "Nothing was bought", clip=clip)
    assert server.accepted == 0 and server.asked("submit") == server.asked("upload") == []
    assert not any(words in str(seen.body) for seen in server.seen for words in ("red square", "blue one"))
    if server.provider != "atlascloud":  # whose bill replaces its quote
        runner.change(limits=Limits(day=5.0))
        prices = [runner.make(ClipRequest("pan", seed=seed)).job.price for seed in range(2)]
        runner.change(limits=Limits(day=sum(prices) + prices[0] / 2))
        refused(runner, ErrorKind.BUDGET, "24 hours", clip=ClipRequest("pan", seed=3))
        assert server.accepted == 2


@pytest.mark.parametrize("limits", [Limits(clip=0.3), Limits(day=0.3)])
@pytest.mark.parametrize("first", ["fal", "replicate"])
def test_whoever_is_too_dear_or_names_no_price_is_passed_over(first: str, limits: Limits, tmp_path: Path) -> None:
    """fal.ai asks $0.51 for the clip, WaveSpeed $0.20; what Replicate asks for its model without LoRAs is not known."""
    with closing(SERVERS[first](tmp_path)) as dear, closing(SERVERS["wavespeed"](tmp_path)) as cheap:
        runner = Runner(tmp_path, dear, cheap)
        runner.change(limits=limits)
        model = PROVIDERS[first].models[{"fal": 0, "replicate": 1}[first]]
        delivery = runner.make(CLIP, runner.target(dear, model), runner.target(cheap))
        assert delivery.job.provider == "wavespeed" and (dear.accepted, cheap.accepted) == (0, 1)
        assert not dear.asked("upload") and not dear.asked("submit")
        assert any("Nothing was bought. Asking WaveSpeed instead." in text for text in runner.shown)
        with pytest.raises(RemoteError) as caught:
            runner.make(replace(CLIP, seed=8), runner.target(dear, model))
        assert caught.value.kind == ErrorKind.BUDGET
        runner.check()


def test_local_only_and_offline_send_nothing(server: ProviderServer, runner: Runner) -> None:
    runner.set(local_only=True)
    refused(runner, ErrorKind.REFUSED_HERE, "leave this machine")
    runner.set(local_only=False)
    runner.change(policy=replace(runner.context.policy, offline=True))
    refused(runner, ErrorKind.REFUSED_HERE, "WAN22_OFFLINE")
    assert server.seen == []


def test_settings_that_change_while_a_job_waits_hold(server: ProviderServer, runner: Runner) -> None:
    """The first look is before the job waits for its turn, the next when it has it."""
    usual = runner.settings
    looks = iter([usual, usual, replace(usual, local_only=True)])
    runner.change(settings=lambda: next(looks))
    refused(runner, ErrorKind.REFUSED_HERE, "leave this machine")
    tight, local = replace(usual, budget=Limits(clip=0.001)), replace(usual, local_only=True)
    if server.provider == OWN:
        return  # no budget holds for it
    for before, late, kind, said in ((4, tight, ErrorKind.BUDGET, "Wan 2.2 > Budget"),
                                     (5, local, ErrorKind.REFUSED_HERE, "leave this machine")):
        looks = iter([usual] * before + [late])  # once the price is known
        refused(runner, kind, said)
        assert not server.asked("upload")
    looks = iter([usual] * 6 + [tight])  # once the picture has left: what decides
    refused(runner, ErrorKind.BUDGET, "Wan 2.2 > Budget")
    assert server.asked("upload") and not server.jobs


@pytest.mark.parametrize("name", ["fal", "wavespeed"])  # which tell their prices
def test_a_job_that_never_left_does_not_count_against_itself(name: str, tmp_path: Path) -> None:
    """ComfyUI was killed between the note of the money and the request."""
    with closing(SERVERS[name](tmp_path)) as server:
        runner = Runner(tmp_path, server)
        (plan,) = plan_targets([runner.target()], CLIP, "keep", False, lambda source: None)
        ledger = runner.context.ledger
        killed = ledger.get_or_create(Job("", name, plan.model_name, "default", request_digest(CLIP, picture().data),
                                  summary={"longer_clips": "keep"}))
        ledger.authorize(killed, Cost(4.9), Limits())
        runner.change(limits=Limits(day=5.0))
        delivery = runner.make(CLIP, longer_clips="trim")
        assert delivery.job.id == killed.id and server.accepted == 1
        assert delivery.job.summary["longer_clips"] == "trim", "what is bought is as chosen now"
        runner.check()


def test_nothing_is_bought_once_nobody_waits(server: ProviderServer, runner: Runner) -> None:
    """ComfyUI has left the run, and its Stop cannot be seen any more."""
    runner.context.abandoned.set()
    with pytest.raises(RunEndedError):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert job.state == JobState.CANCELED and not server.accepted and not server.asked("upload")


def test_stop_while_it_waits(server: ProviderServer, runner: Runner) -> None:
    server.script = Script(queued=0, running=FOREVER)
    runner.stop = lambda: stop_after(runner, lambda: len(server.asked("poll")) >= 2)
    with pytest.raises(Stopped):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    (there,) = server.jobs.values()
    if server.provider in CANCELS:
        assert there.cancelled and job.state == JobState.CANCELED and "cancelled" in runner.shown[-1]
        assert "content-length" in server.asked("cancel")[0].headers  # without it servers answer 411 (RFC 9110)
    else:
        assert job.state == JobState.RUNNING and "billed" in runner.shown[-1] and job.short_id in runner.shown[-1]
        runner.stop = lambda: None
        there.script = Script(queued=0, running=0)
        assert runner.make().job.state == JobState.DONE and server.accepted == 1


@pytest.mark.parametrize("when", ["before the cancel", "unheard", "on its way"])
def test_stop_never_forgets_a_clip_that_is_paid(server: ProviderServer, runner: Runner, when: str) -> None:
    """The clip is finished at the moment of Stop, a cancel is acknowledged and not obeyed, the file is under way."""
    server.script = Script(queued=0, running=10, deaf=when == "unheard")

    def stop() -> None:
        if when != "on its way" and server.asked("poll"):
            if when == "before the cancel":
                server.finish(next(iter(server.jobs.values())))
            raise Stopped
        if server.cdn.asked("download"):
            raise Stopped

    if when == "on its way":
        server.script = Script(queued=0, running=0)
        server.cdn.fail("download", drip(2000.0))
    runner.stop = stop
    with pytest.raises(Stopped):
        runner.make()
    assert runner.shown[-1].startswith("Stopped")
    runner.stop = lambda: None
    assert runner.make().job.state == JobState.DONE and server.accepted == 1


@pytest.mark.parametrize("point", ["upload", "poll"])
def test_stop_is_heard_while_a_provider_does_not_answer(server: ProviderServer, runner: Runner, point: str) -> None:
    """The run ends before the request does, which would go on until the server is closed."""
    server.fail(point, hold(threading.Event()))
    runner.stop = lambda: stop_after(runner, lambda: server.asked(point))
    with pytest.raises(Stopped):
        runner.make()
    assert server.asked(point)[0].status is None and server.accepted == (point == "poll")


def test_stop_during_the_submit_knows_the_job_it_bought(server: ProviderServer, runner: Runner) -> None:
    """The answer is waited for, so that what was bought is never forgotten."""
    release = threading.Event()
    server.fail("submit", hold(release))
    threading.Timer(1.0, release.set).start()
    runner.stop = lambda: stop_after(runner, lambda: server.accepted > 0)
    with pytest.raises(Stopped):
        runner.make()
    (job,) = runner.context.ledger.jobs()
    assert job.remote_id == next(iter(server.jobs)) and server.accepted == 1


def test_stop_before_the_submit_costs_nothing(server: ProviderServer, runner: Runner) -> None:
    for point in ("models", "upload", "token", "schema"):
        if point in server.points:
            server.fail(point, answer(503, ""), times=100)
    runner.stop = lambda: stop_after(runner, lambda: len(server.seen) >= 1)
    with pytest.raises(Stopped):
        runner.make()
    assert server.accepted == 0
    assert [job.state for job in runner.context.ledger.jobs()] == [JobState.CANCELED]


def stop_after(runner: Runner, seen) -> None:
    if seen():
        raise Stopped


@paid
def test_a_prompt_against_the_rules(server: ProviderServer, runner: Runner) -> None:
    refused(runner, ErrorKind.POLICY, clip=ClipRequest("refuse-this pan"))


@paid
@pytest.mark.parametrize(("lora", "said"), [
    (Lora("mine.safetensors"), "file on this machine"), (Lora("https://a.example/x.ckpt"), ".safetensors"),
    (Lora("https://192.168.0.4/x.safetensors"), "no provider can read it"),
    (Lora("https://a.example/x.safetensors", -1.0), "scales of"),
])
def test_a_lora_that_no_provider_can_take_is_refused_first(server: ProviderServer, runner: Runner, lora: Lora,
                                                           said: str) -> None:
    refused(runner, ErrorKind.VALIDATION, said, "Nothing was sent", clip=ClipRequest("pan", loras=(lora,)))
    assert server.seen == []


@paid
def test_a_file_of_this_machine_goes_before_a_link_that_reads_the_same(server: ProviderServer, runner: Runner) -> None:
    source = "style/wan/foo.safetensors"
    runner.change(find_lora=lambda name: Path("loras", name) if name == source else None)
    refused(runner, ErrorKind.VALIDATION, "file on this machine", clip=ClipRequest("pan", loras=(Lora(source),)))
    assert server.seen == []
    runner.make(ClipRequest("pan", loras=(Lora("style/wan/bar.safetensors"),)))
    (job,) = server.jobs.values()
    assert "https://huggingface.co/style/wan/resolve/main/bar.safetensors" in str(job.inputs)


def test_strict_refuses_what_would_be_changed(server: ProviderServer, runner: Runner) -> None:
    clip = ClipRequest("pan", num_inference_steps=50)
    if server.provider == OWN:
        assert runner.make(clip, strict=True).notes == (), "nothing is"
    else:
        with pytest.raises(RemoteError, match="strict is on"):
            runner.make(clip, strict=True)
    if server.provider in ("fal", OWN):  # which make clips of 33 frames
        assert runner.make(ClipRequest("pan", num_frames=33), longer_clips="refuse").job.state == JobState.DONE
        return
    with pytest.raises(RemoteError, match="at least"):
        runner.make(ClipRequest("pan", num_frames=33), longer_clips="refuse")
    assert server.seen == []
