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
from tests.support.providers.job import FOREVER, Script
from tests.support.providers.replicate import ReplicateServer
from tests.support.runner import CLIP, Runner, Stopped, picture

TIMEOUT = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReplicateServer]:
    with closing(ReplicateServer(tmp_path)) as server:
        server.script = Script(queued=0, running=0)
        yield server


@pytest.fixture
def runner(server: ReplicateServer, tmp_path: Path) -> Runner:
    return Runner(tmp_path, server)


def until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_clip_is_fetched_while_the_graph_computes(server: ReplicateServer, runner: Runner) -> None:
    done = threading.Event()

    def changed(job_id: str) -> None:
        if runner.context.ledger.get(job_id).state == JobState.DONE:
            done.set()

    runner.change(ledger=Ledger(runner.folder / "ledger", changed))

    async def graph() -> None:
        clip = asyncio.create_task(in_own_loop(make_clip([runner.target()], CLIP, picture(), runner.context),
                                               runner.context.abandoned))
        await asyncio.sleep(0)
        assert done.wait(TIMEOUT), "this blocks the loop, as a sampler does"
        assert (await clip).job.state == JobState.DONE

    asyncio.run(graph())


def begin_two_and_break_off(server: ReplicateServer, runner: Runner) -> None:
    """As ComfyUI does when any node ends the run: its loop cancels what is left."""

    async def graph() -> None:
        clips = [asyncio.create_task(in_own_loop(make_clip([runner.target()], replace(CLIP, seed=seed), picture(),
                                                           runner.context), runner.context.abandoned))
                 for seed in (1, 2)]
        while len({seen.path for seen in server.asked("poll")}) < 2:
            assert not any(clip.done() for clip in clips)
            await asyncio.sleep(0.01)

    asyncio.run(graph())


def test_stop_calls_off_the_jobs_that_nobody_waits_for_any_more(server: ReplicateServer, runner: Runner) -> None:
    server.script = Script(queued=0, running=FOREVER)
    over = threading.Event()

    def stop() -> None:
        if over.is_set():
            raise Stopped

    runner.stop = stop
    begin_two_and_break_off(server, runner)
    assert not any(job.cancelled for job in server.jobs.values()), "why it broke off is not known yet"
    over.set()
    until(lambda: {job.state for job in runner.context.ledger.jobs()} == {JobState.CANCELED})
    assert [job.cancelled for job in server.jobs.values()] == [True, True]


def test_an_error_elsewhere_calls_off_nothing(server: ReplicateServer, runner: Runner) -> None:
    server.script = Script(queued=0, running=FOREVER)
    over = threading.Event()

    def stop() -> None:
        if over.is_set():
            raise RunEndedError

    runner.stop = stop
    begin_two_and_break_off(server, runner)
    over.set()
    until(lambda: sum("The run has ended. Replicate continues the job" in text for text in runner.shown) == 2)
    assert not any(job.cancelled for job in server.jobs.values())
    for job in server.jobs.values():
        job.script = Script(queued=0, running=0)
    runner.stop = lambda: None
    for seed in (1, 2):
        assert runner.make(replace(CLIP, seed=seed)).job.state == JobState.DONE
    assert server.accepted == 2
    runner.check()


def test_a_run_that_breaks_off_tells_its_jobs_at_once(server: ReplicateServer, runner: Runner) -> None:
    """Before any sign of ComfyUI's could."""
    server.script = Script(queued=0, running=FOREVER)
    assert not runner.context.abandoned.is_set()
    begin_two_and_break_off(server, runner)
    assert runner.context.abandoned.is_set()
    ended = RunEndedError()

    def stop() -> None:
        raise ended

    runner.stop = stop  # so that no thread of the test is left polling
