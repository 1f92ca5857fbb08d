"""Jobs beside a graph: they go on while its loop stands still, and learn of the end of a run that broke off."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.http.threads import in_own_loop
from pipeline.remote.errors import RunEndedError
from pipeline.remote.job import JobState
from pipeline.remote.ledger import Ledger
from pipeline.remote.run import make_clip
from tests.support.office import CLIP, Office, Stopped, picture
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.replicate import ReplicateServer

PATIENCE = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReplicateServer]:
    with closing(ReplicateServer(tmp_path)) as server:
        server.script = Script(queued=0, running=0)
        yield server


@pytest.fixture
def office(server: ReplicateServer, tmp_path: Path) -> Office:
    return Office(tmp_path, server)


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_clip_is_fetched_while_the_graph_computes(server: ReplicateServer, office: Office) -> None:
    done = threading.Event()

    def changed(job_id: str) -> None:
        if office.context.ledger.get(job_id).state == JobState.DONE:
            done.set()

    office.change(ledger=Ledger(office.folder / "ledger", changed))

    async def graph() -> None:
        clip = asyncio.create_task(in_own_loop(make_clip([office.target()], CLIP, picture(), office.context),
                                               office.context.abandoned))
        await asyncio.sleep(0)
        assert done.wait(PATIENCE), "this blocks the loop, as a sampler does"
        assert (await clip).job.state == JobState.DONE

    asyncio.run(graph())


def begin_two_and_break_off(server: ReplicateServer, office: Office) -> None:
    """As ComfyUI does when any node ends the run: its loop cancels what is left."""

    async def graph() -> None:
        clips = [asyncio.create_task(in_own_loop(make_clip([office.target()], replace(CLIP, seed=seed), picture(),
                                                           office.context), office.context.abandoned))
                 for seed in (1, 2)]
        while len({seen.path for seen in server.asked("poll")}) < 2:
            assert not any(clip.done() for clip in clips)
            await asyncio.sleep(0.01)

    asyncio.run(graph())


def test_stop_calls_off_the_jobs_that_nobody_waits_for_any_more(server: ReplicateServer, office: Office) -> None:
    server.script = Script(queued=0, running=FOREVER)
    over = threading.Event()

    def stop() -> None:
        if over.is_set():
            raise Stopped

    office.stop = stop
    begin_two_and_break_off(server, office)
    assert not any(job.cancelled for job in server.jobs.values()), "why it broke off is not known yet"
    over.set()
    until(lambda: {job.state for job in office.context.ledger.jobs()} == {JobState.CANCELED})
    assert [job.cancelled for job in server.jobs.values()] == [True, True]


def test_an_error_elsewhere_calls_off_nothing(server: ReplicateServer, office: Office) -> None:
    server.script = Script(queued=0, running=FOREVER)
    over = threading.Event()

    def stop() -> None:
        if over.is_set():
            raise RunEndedError

    office.stop = stop
    begin_two_and_break_off(server, office)
    over.set()
    until(lambda: sum("The run has ended. Replicate continues the job" in text for text in office.said) == 2)
    assert not any(job.cancelled for job in server.jobs.values())
    for job in server.jobs.values():
        job.script = Script(queued=0, running=0)
    office.stop = lambda: None
    for seed in (1, 2):
        assert office.make(replace(CLIP, seed=seed)).job.state == JobState.DONE
    assert server.accepted == 2
    office.check()


def test_a_run_that_breaks_off_tells_its_jobs_at_once(server: ReplicateServer, office: Office) -> None:
    """Before any sign of ComfyUI's could."""
    server.script = Script(queued=0, running=FOREVER)
    assert not office.context.abandoned.is_set()
    begin_two_and_break_off(server, office)
    assert office.context.abandoned.is_set()
    ended = RunEndedError()

    def stop() -> None:
        raise ended

    office.stop = stop  # so that no thread of the test is left polling
