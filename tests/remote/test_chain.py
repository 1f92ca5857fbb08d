"""Chains of clips: each goes on from the last frame of the one before, is bought once, and the whole is reckoned first.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.remote.budget import Cost, Limits
from pipeline.remote.clip import remote_chain
from pipeline.remote.errors import ErrorKind, RemoteError
from pipeline.remote.job import JobState
from pipeline.remote.providers import PROVIDERS
from pipeline.remote.settings import Settings
from pipeline.request import ClipRequest, Lora, RequestError
from pipeline.segments import Segment
from pipeline.video.join_files import last_frame
from pipeline.video.probe import probe_video
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.provider_server import ProviderServer
from tests.support.runner import SERVERS, Runner, Stopped

FIRST = ClipRequest("it begins", num_frames=81, seed=1)
SEGMENTS = (Segment("it goes on", 2), Segment("it ends", 3))
IMAGE = torch.full((1, 64, 96, 3), 0.4)


SHORT = Script(queued=0, running=0, frames=9)


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProviderServer]:
    """Yield a server whose clips are short."""
    with closing(SERVERS[request.param](tmp_path)) as server:
        server.script = SHORT
        yield server


on = partial(pytest.mark.parametrize, "server", indirect=True)


def chain(runner: Runner, segments: tuple[Segment, ...] = SEGMENTS, clip: ClipRequest = FIRST, targets=None,
          **how) -> tuple[Path, dict]:
    work = remote_chain(IMAGE, clip, segments, targets or (runner.target(),), runner.context,
                        **{"longer_clips": "trim", "strict": False, **how})
    path, report = asyncio.run(work)
    return path, json.loads(report)


def pixels(server: ProviderServer, link: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(server.uploads[link].data)).convert("RGB")).astype(int)


def picture_of(inputs: dict) -> str:
    return inputs.get("image") or inputs["image_url"]


@on(SERVERS)
def test_each_clip_begins_with_the_last_frame_of_the_one_before(server: ProviderServer, runner: Runner) -> None:
    path, report = chain(runner)
    jobs = list(server.jobs.values())
    assert [job.inputs["prompt"] for job in jobs] == ["it begins", "it goes on", "it ends"]
    assert [job.inputs["seed"] for job in jobs] == [1, 2, 3]
    for before, job in zip(report["segments"], jobs[1:], strict=False):
        shown = (last_frame(runner.context.results / before["file"], None)[0] * 255).round().numpy().astype(int)
        assert abs(pixels(server, picture_of(job.inputs)) - shown).max() <= 1
    assert probe_video(path).frames == 3 * 9 - 2 and report["file"] == path.name
    asked = len(server.seen)
    assert chain(runner)[0] == path and len(server.seen) == asked, "all of it is there"
    chain(runner, (SEGMENTS[0], replace(SEGMENTS[1], prompt="it ends otherwise")))
    assert server.accepted == 4, "the first two are not bought anew"


@on(["wavespeed", "replicate"])
def test_a_chain_that_was_stopped_goes_on_where_it_broke_off(server: ProviderServer, runner: Runner) -> None:
    server.plan(SHORT, replace(SHORT, running=FOREVER))

    def stop() -> None:
        if any(job.polls > 1 and job.inputs["seed"] == 2 for job in server.jobs.values()):
            raise Stopped

    runner.stop = stop
    with pytest.raises(Stopped):
        chain(runner)
    runner.stop = lambda: None
    for job in server.jobs.values():
        job.script = SHORT
    chain(runner)
    seeds = [job.inputs["seed"] for job in server.jobs.values() if not job.cancelled]
    assert sorted(seeds) == [1, 2, 3]


@on(["atlascloud"])
def test_a_frame_that_another_decoder_reads_otherwise_buys_nothing(server: ProviderServer, runner: Runner,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    chain(runner, SEGMENTS[:1])
    found = last_frame
    monkeypatch.setattr("pipeline.remote.clip.last_frame", lambda path, frames: 1 - found(path, frames))
    chain(runner, SEGMENTS[:1])
    assert server.accepted == 2


@on(["wavespeed"])
def test_the_price_of_all_clips_is_checked_before_the_first(server: ProviderServer, runner: Runner) -> None:
    """Each costs $0.20."""
    for limits, budget in ((Limits(clip=0.5), Limits()), (Limits(day=0.5), Limits()), (Limits(), Limits(clip=0.5))):
        runner.change(limits=limits, settings=lambda budget=budget: Settings(budget=budget))
        with pytest.raises(RemoteError, match=r"\$0.600.*Nothing was bought") as caught:
            chain(runner)
        assert caught.value.kind == ErrorKind.BUDGET and not server.accepted and not server.asked("upload_data")
    runner.change(limits=Limits(clip=0.6), settings=Settings)
    _, report = chain(runner)
    assert report["price"]["usd"] == pytest.approx(0.6)
    assert any("3 clips to buy: $0.600" in text for text in runner.shown)


@pytest.mark.parametrize("state", [JobState.NEW, JobState.UPLOADING, JobState.SUBMITTING])
@on(["wavespeed"])
def test_a_job_that_was_never_sent_does_not_count_as_bought(state: JobState, server: ProviderServer, runner: Runner,
                                                            ) -> None:
    """A run that ends while its first clip waits for a free slot leaves its row in the ledger, as a crash does."""

    def stop() -> None:
        if runner.context.ledger.jobs():
            raise Stopped

    runner.set(concurrent={"wavespeed": 0})
    runner.stop = stop
    with pytest.raises(Stopped):
        chain(runner)
    runner.set(concurrent={})
    runner.stop = lambda: None
    (left,) = runner.context.ledger.jobs()
    assert left.state == JobState.NEW
    if state == JobState.SUBMITTING:
        runner.context.ledger.authorize(left, Cost(0.2, "a table"), Limits())
    else:
        runner.context.ledger.update(left, state=state)
    for limits in (Limits(clip=0.5), Limits(day=0.5)):
        runner.change(limits=limits)
        with pytest.raises(RemoteError, match=r"3 clips cost \$0.600.*Nothing was bought"):
            chain(runner)
        assert not server.accepted and not server.asked("upload_data")
    runner.change(limits=Limits(clip=0.6, day=0.6))  # what the row reserves of the day is its clip's own price
    chain(runner)
    assert server.accepted == 3


@on(["wavespeed"])
def test_a_chain_that_grew_too_dear_says_what_was_paid(server: ProviderServer, runner: Runner) -> None:
    chain(runner, SEGMENTS[:1])
    for limits, said in (
            (Limits(clip=0.7), r"^The 2 clips cost \$0.400, with those before \$0.800, more than max_cost, \$0.700\. "),
            (Limits(day=0.7), r"^\$0.400 was spent in the last 24 hours and the 2 clips cost \$0.400")):
        runner.change(limits=limits)
        with pytest.raises(RemoteError, match=said) as caught:
            chain(runner, (*SEGMENTS, Segment("it is over", 4)))
        assert str(caught.value).endswith("$0.400 was paid for the clips before; they are kept, and the next run goes "
                                          "on from them.")
    assert server.accepted == 2


@on(["replicate"])
def test_a_price_that_rises_on_the_way_is_refused_with_the_sum(server: ProviderServer, runner: Runner) -> None:
    """Nobody publishes this model's: the user's own estimate counts, which is raised after the first clip."""
    target = next(runner.target(model=model) for model in PROVIDERS["replicate"].models if not model.prices)
    name = target.model.name("480p")
    runner.change(limits=Limits(clip=0.6), settings=lambda: Settings(prices={name: 0.5 if server.accepted else 0.2}))
    with pytest.raises(RemoteError, match=r"^Segment 1: The clip costs \$0.500, with those before \$0.700, more than "
                                          r"max_cost, \$0.600\. \$0.200 was paid for the clips before"):
        chain(runner, targets=(target,))
    assert server.accepted == 1


def test_a_provider_whose_whole_chain_is_too_dear_is_passed_over(tmp_path: Path) -> None:
    """fal.ai asks $1.52 for it, WaveSpeed $0.60, and each clip of fal.ai's alone would do."""
    with closing(SERVERS["fal"](tmp_path)) as dear, closing(SERVERS["wavespeed"](tmp_path)) as cheap:
        cheap.script = SHORT
        runner = Runner(tmp_path, dear, cheap)
        runner.change(limits=Limits(clip=1.0))
        chain(runner, targets=(runner.target(dear), runner.target(cheap)))
        assert (dear.accepted, cheap.accepted) == (0, 3)
        runner.check()


@pytest.mark.parametrize(("segments", "said"), [
    ((SEGMENTS[0], Segment(" ", 3)), "Segment 2: The prompt is empty"),
    ((Segment("on", 2**40),), "Segment 1: seed is 1099511627776; hosted models take 0 to"),
    ((Segment("on", 2, loras=(Lora("mine.safetensors"),)),), "Segment 1: The LoRA 'mine.safetensors' is a file"),
    ((Segment("on", 2, 165),), "Segment 1"),
])
@on(["fal"])
def test_a_segment_that_cannot_be_is_told_before_anything_is_bought(segments: tuple[Segment, ...], said: str,
                                                                    server: ProviderServer, runner: Runner) -> None:
    with pytest.raises((RemoteError, RequestError), match=said):
        chain(runner, segments)
    assert server.seen == []


@on(["fal", "wavespeed"])
def test_loras_of_a_segment_its_length_and_the_picture_of_the_end(server: ProviderServer, runner: Runner) -> None:
    server.script = replace(SHORT, frames=None)
    first, second = "https://a.example/one.safetensors", "https://a.example/two.safetensors"
    shorter = (replace(SEGMENTS[0], num_frames=33, loras=(Lora(second, 0.5, "both"),)), replace(SEGMENTS[1],
                                                                                              num_frames=17))
    path, _ = chain(runner, shorter, replace(FIRST, num_frames=17, loras=(Lora(first, 1.0, "both"),)),
                    last_image=IMAGE * 0.5)
    loras = [[lora["path"] for lora in job.inputs["loras"]] for job in server.jobs.values()]
    assert loras == [[first], [first, second], [first]]
    last = runner.target().model.last_image
    assert [last in job.inputs for job in server.jobs.values()] == [False, False, True]
    assert probe_video(path).frames == 17 + 32 + 16


@on(["replicate"])
def test_the_same_seed_is_warned_of(server: ProviderServer, runner: Runner) -> None:
    chain(runner, (Segment("on", 1, new_shot=True),))
    assert "More than one clip has the seed 1" in "".join(runner.shown)
    assert "new_shot has no effect" in "".join(runner.shown)
    assert {job.state for job in runner.context.ledger.jobs()} == {JobState.DONE}
