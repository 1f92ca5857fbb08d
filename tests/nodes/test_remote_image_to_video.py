"""The remote nodes in the real ComfyUI, against the providers' loopback servers."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import av
import numpy as np
import psutil
import pytest

from devtools.workflow import Workflow
from pipeline.remote.job import JobState
from pipeline.remote.ledger import Ledger
from pipeline.remote.providers import PROVIDERS
from tests.support.api_server import Work
from tests.support.comfy_client import TIMEOUT, ComfyClient, Event, RejectedError, clip_workflow, messages
from tests.support.comfy_outside import PACE, PICTURE, Outside, remote_node
from tests.support.faults import answer, reset
from tests.support.loopback_server import Request
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.runner import SERVERS

Providers = dict[str, ProviderServer]


@pytest.fixture(scope="module")
def providers(outside: Outside) -> Iterator[Providers]:
    with outside.keys({name: provider.key for name, provider in outside.providers.items()}):
        yield outside.providers


@pytest.fixture
def comfy(outside: Outside, providers: Providers) -> Iterator[ComfyClient]:
    """A ComfyUI that has every provider's key, and finds them on loopback, where jobs go quickly."""
    for provider in providers.values():
        provider.script = Script(queued=1, running=1)
    yield outside.comfy
    for provider in providers.values():
        provider.script = Script()
    outside.check()


def remote(name: str, seed: int, **inputs: object) -> dict:
    return remote_node(name, seed, **{"prompt": "the camera pans right", **inputs})


def graph(**nodes: dict) -> Workflow:
    """The remote nodes, each with its report shown."""
    shown = {f"{name} report": {"class_type": "PreviewAny", "inputs": {"source": [name, 2]}} for name in nodes}
    return {"picture": PICTURE, **nodes, **shown}


def reports(comfy: ComfyClient, run) -> dict[str, dict]:
    outputs = comfy.history(run.prompt_id)["outputs"]
    return {name.removesuffix(" report"): json.loads(shown["text"][0]) for name, shown in outputs.items()
            if name.endswith(" report")}


@pytest.mark.parametrize("name", SERVERS)
def test_a_clip_from_the_canvas_to_the_file(name: str, comfy: ComfyClient, providers: Providers) -> None:
    provider = providers[name]
    lora = {"class_type": "Wan22Lora", "inputs": {"source": "https://weights.example/a.safetensors", "scale": 0.8,
                                                  "expert": "both"}}
    workflow = graph(clip=remote(name, 1, num_frames=33, loras=["lora", 0])) | {
        "lora": lora,
        "save": {"class_type": "SaveVideo", "inputs": {"video": ["clip", 0], "filename_prefix": f"{name}/clip",
                                                       "format": "auto", "codec": "auto"}},
        "first": {"class_type": "ImageFromBatch", "inputs": {"image": ["clip", 1], "batch_index": 0, "length": 40}},
        "look": {"class_type": "PreviewImage", "inputs": {"images": ["first", 0]}}}
    before = provider.accepted
    run = comfy.finish(workflow)
    (file,) = comfy.files(run, "save")
    with av.open(io.BytesIO(file)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 33
    frames = comfy.frames(run, "look")
    assert frames.shape == (33, 64, 96, 3) and not np.array_equal(frames[0], frames[-1])
    (shown,) = comfy.history(run.prompt_id)["outputs"]["clip"]["images"]
    assert (shown["num_frames"], shown["subfolder"], shown["type"]) == (33, "wan22/remote", "output")
    told = reports(comfy, run)["clip"]
    assert provider.accepted == before + 1 and told["remote_id"] in provider.jobs
    assert told["provider"] == name and told["asked"]["num_frames"] == 33
    texts = [event.data["text"] for event in run.events if event.kind == "text"]
    assert any("queued" in text for text in texts) and any("done" in text for text in texts)
    comfy.forget()
    again = comfy.finish(workflow)
    assert reports(comfy, again)["clip"] == told and provider.accepted == before + 1


def test_frames_that_are_wanted_only_later(comfy: ComfyClient, providers: Providers) -> None:
    """Of a clip with a last picture and a further parameter."""
    workflow = graph(clip=remote("fal", 9, last_image=["picture", 0], options='{"shift": 4}'))
    comfy.finish(workflow)
    inputs = list(providers["fal"].jobs.values())[-1].inputs
    assert inputs["shift"] == 4 and providers["fal"].uploads[inputs["end_image_url"]].data
    run = comfy.finish(workflow | {"look": {"class_type": "PreviewImage", "inputs": {"images": ["clip", 1]}}})
    assert comfy.frames(run, "look").shape == (81, 64, 96, 3)


def test_a_chain_of_segments_is_one_video(comfy: ComfyClient, providers: Providers) -> None:
    provider = providers["atlascloud"]
    provider.script = Script(queued=0, running=0, frames=9)
    before = provider.accepted
    workflow = graph(clip=remote("atlascloud", 20, segments=["last", 0])) | {
        "first": {"class_type": "Wan22Segment", "inputs": {"prompt": "it goes on", "seed": 21, "num_frames": 81}},
        "last": {"class_type": "Wan22Segment", "inputs": {"prompt": "it ends", "seed": 22, "num_frames": 81,
                                                          "segments": ["first", 0]}},
        "look": {"class_type": "PreviewImage", "inputs": {"images": ["clip", 1]}}}
    run = comfy.finish(workflow)
    told = reports(comfy, run)["clip"]
    assert comfy.frames(run, "look").shape == (25, 64, 96, 3) and provider.accepted == before + 3
    assert [part["asked"]["prompt"] for part in told["segments"]] == ["the camera pans right", "it goes on", "it ends"]
    assert told["price"]["usd"] == pytest.approx(0.75)
    texts = [event.data["text"] for event in run.events if event.kind == "text"]
    assert any("Clip 2 of 3. AtlasCloud, 3 clips to buy: $0.750" in text for text in texts)


def test_several_nodes_wait_at_the_same_time(comfy: ComfyClient, providers: Providers) -> None:
    run = comfy.finish(graph(**{name: remote(name, 2) for name in SERVERS}))
    assert set(reports(comfy, run)) == set(SERVERS)


def test_the_next_provider_is_asked_when_the_first_refuses(comfy: ComfyClient, providers: Providers) -> None:
    before = {name: provider.accepted for name, provider in providers.items()}
    providers["wavespeed"].balance, kept = 0.0, providers["wavespeed"].balance
    next_ones = {"class_type": "Wan22RemoteFallback", "inputs": {
        "provider": "fal.ai", "provider.model": PROVIDERS["fal"].models[0].id, "options": '{"shift": 6}'}}
    workflow = graph(clip=remote("wavespeed", 3, fallbacks=["next", 0])) | {"next": next_ones}
    run = comfy.finish(workflow)
    providers["wavespeed"].balance = kept
    assert reports(comfy, run)["clip"]["provider"] == "fal"
    assert providers["fal"].accepted == before["fal"] + 1
    assert list(providers["fal"].jobs.values())[-1].inputs["shift"] == 6
    comfy.forget()
    assert reports(comfy, comfy.finish(workflow))["clip"]["provider"] == "fal", "whoever made it is asked first"
    assert providers["wavespeed"].accepted == before["wavespeed"]


def test_a_submit_of_unknown_outcome_asks_nobody_else(comfy: ComfyClient, providers: Providers) -> None:
    before = providers["fal"].accepted
    providers["atlascloud"].fail("submit", reset(after=True))
    providers["atlascloud"].fail("history", answer(403, {"code": 403, "msg": "forbidden"}))
    next_ones = {"class_type": "Wan22RemoteFallback", "inputs": {"provider": "fal.ai", "provider.model":
                                                                 PROVIDERS["fal"].models[0].id}}
    workflow = graph(clip=remote("atlascloud", 4, fallbacks=["next", 0])) | {"next": next_ones}
    run = comfy.run(workflow)
    assert run.outcome == "execution_error" and providers["fal"].accepted == before
    message = run.events[-1].data["exception_message"]
    assert "not sent again by itself" in message
    short_id = message.partition("the job ")[2][:8]
    there = list(providers["atlascloud"].jobs)[-1]
    resume = {"class_type": "Wan22ResumeRemoteClip", "inputs": {"job": short_id, "remote_id": there}}
    assert reports(comfy, comfy.finish(graph(clip=resume)))["clip"]["remote_id"] == there


@pytest.mark.parametrize("name", ["fal", "wavespeed"])
def test_stop_reads_as_cancelled(name: str, comfy: ComfyClient, providers: Providers) -> None:
    provider = providers[name]
    provider.script = Script(queued=0, running=FOREVER)
    run = comfy.run(graph(clip=remote(name, 5)), on_event=lambda event: comfy.interrupt() if event.kind == "text"
                    and "running" in event.data["text"] else None)
    assert run.outcome == "execution_interrupted"
    last = [event.data["text"] for event in run.events if event.kind == "text"][-1]
    assert ("is cancelled" if name == "fal" else "billed") in last
    assert list(provider.jobs.values())[-1].cancelled == (name == "fal")


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("by", ["a remote node", "the sampler"])
def test_stop_calls_off_every_job_of_the_run(by: str, outside: Outside, comfy: ComfyClient,
                                             providers: Providers) -> None:
    """Whichever node hears Stop first ends the run for all of them."""
    there = [providers[name] for name in ("fal", "replicate")]
    for provider in there:
        provider.script = Script(queued=0, running=FOREVER)
    workflow = graph(fal=remote("fal", 30), replicate=remote("replicate", 30))
    if by == "the sampler":
        # So long that it is at work when both jobs are: it could end before them otherwise, and nobody pressed Stop.
        local = clip_workflow("picture.png", 128, 128, num_frames=81, steps=50)
        workflow = graph(fal=remote("fal", 31), replicate=remote("replicate", 31)) | local
    at_work: set[str] = set()

    def on_event(event: Event) -> None:
        if event.kind == "text" and "running" in event.data["text"]:
            at_work.add(event.data["node"])
        if len(at_work) == 2 and (by != "the sampler" or event.kind == "progress"):
            comfy.interrupt()

    assert comfy.run(workflow, on_event=on_event).outcome == "execution_interrupted"
    jobs = [list(provider.jobs.values())[-1] for provider in there]
    until(lambda: all(job.cancelled for job in jobs))
    ledger = Ledger(outside.own)
    until(lambda: {ledger.find(job.id).state for job in jobs} == {JobState.CANCELED})


def test_an_error_elsewhere_leaves_a_paid_job_alone(outside: Outside, comfy: ComfyClient,
                                                    providers: Providers) -> None:
    fal, replicate = providers["fal"], providers["replicate"]
    fal.script = Script(queued=0, running=FOREVER)
    at_work = threading.Event()

    def refuse_then(request: Request, work: Work) -> None:
        at_work.wait(TIMEOUT)
        answer(401, {"detail": "Unauthenticated"})(request, work)

    replicate.fail("submit", refuse_then)
    workflow = graph(fal=remote("fal", 32), replicate=remote("replicate", 32))
    run = comfy.run(workflow, on_event=lambda event: at_work.set() if event.kind == "text" and "running" in
                    event.data["text"] else None)
    assert run.outcome == "execution_error"
    there, ledger = list(fal.jobs.values())[-1], Ledger(outside.own)
    with ledger.lock(ledger.find(there.id)).acquire(timeout=TIMEOUT):
        assert ledger.find(there.id).state == JobState.RUNNING and not there.cancelled
    there.script = Script(queued=0, running=0)
    before = fal.accepted
    assert reports(comfy, comfy.finish(workflow))["fal"]["remote_id"] == there.id and fal.accepted == before


@pytest.mark.parametrize(("inputs", "said"), [
    ({"prompt": " "}, "The prompt is empty"), ({"num_frames": 34}, "multiple of 4 plus 1"),
    ({"profile": "sk-my key"}, "profile is not a profile name"), ({"num_inference_steps": 9}, "smaller than min"),
    ({"guidance_scale": 11.0}, "bigger than max"), ({"resolution": "1440p"}, "not in list"),
])
def test_refused_when_it_is_queued(comfy: ComfyClient, inputs: dict, said: str) -> None:
    with pytest.raises(RejectedError) as caught:
        comfy.submit(graph(clip=remote("fal", 6, **inputs)))
    assert any(said.lower() in message.lower() for message in messages(caught.value.errors["clip"])), caught.value


def test_what_fails_is_told_on_the_node(comfy: ComfyClient, providers: Providers) -> None:
    providers["fal"].fail("submit", answer(401, {"detail": "No user found for Key ID and Secret"}))
    run = comfy.run(graph(clip=remote("fal", 7)))
    assert run.outcome == "execution_error"
    message = run.events[-1].data["exception_message"]
    assert "rejected the API key" in message
    assert any(message.strip() in event.data["text"] for event in run.events if event.kind == "text")


def test_a_hundred_jobs_at_once(comfy: ComfyClient, providers: Providers) -> None:
    """Within each account's limit, no poll sooner than the schedule has it, and memory that does not follow them."""
    names = list(SERVERS)
    process = psutil.Process(comfy.server._process.pid)
    comfy.finish(graph(clip=remote("fal", 8)))
    before = {name: (provider.accepted, len(provider.asked("poll"))) for name, provider in providers.items()}
    for provider in providers.values():
        for job in provider.jobs.values():
            provider.finish(job)
        provider.most_unfinished = 0
        provider.script = Script(queued=2, running=2)
    resident = process.memory_info().rss
    share = 100 // len(names)
    run = comfy.finish(graph(**{f"clip {n}": remote(names[n % len(names)], 100 + n) for n in range(100)}))
    grown = process.memory_info().rss - resident
    assert len(reports(comfy, run)) == 100
    for name, provider in providers.items():
        accepted, polls = before[name]
        assert provider.accepted - accepted == share
        assert len(provider.asked("poll")) - polls == share * 5, "each poll brought something new"
        assert 1 < provider.most_unfinished <= PROVIDERS[name].concurrent
        times: dict[str, list[float]] = {}
        for seen in provider.asked("poll")[polls:]:
            times.setdefault(seen.path, []).append(seen.at)
        gaps = [later - sooner for each in times.values() for sooner, later in pairwise(each)]
        assert min(gaps) >= 5.0 * 0.5 * PACE * 0.9
    assert grown < 100 * 2**20, f"{grown / 2**20:.0f} MB"
