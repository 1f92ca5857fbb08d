"""The ledger of remote jobs: one job per request, states that do not go back, money that is counted once."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from devtools.paths import ROOT
from pipeline.remote.budget import Cost, Limits
from pipeline.remote.database import opened
from pipeline.remote.errors import ErrorKind, RemoteError
from pipeline.remote.job import Job, JobState
from pipeline.remote.ledger import Ledger

JOB = Job("", "fal", "model", "default", "d" * 64, summary={"prompt": "pan"})
SPENDERS = """
import sys
from pathlib import Path
from pipeline.remote.errors import RemoteError
from pipeline.remote.job import Job
from pipeline.remote.budget import Cost, Limits
from pipeline.remote.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
shared = ledger.get_or_create(Job("", "fal", "model", "default", "shared"))
bought = 0
for number in range(10):
    job = ledger.get_or_create(Job("", "fal", "model", "default", f"{sys.argv[2]}/{number}"))
    try:
        ledger.authorize(job, Cost(0.5), Limits(day=10.0))
        bought += 1
    except RemoteError:
        pass
print(shared.id, bought)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def test_a_request_has_one_job_until_that_is_over(ledger: Ledger) -> None:
    job = ledger.get_or_create(JOB)
    assert job.id and ledger.get_or_create(JOB) == job
    for state in (JobState.QUEUED, JobState.TIMED_OUT, JobState.SUBMIT_UNKNOWN, JobState.DONE):
        ledger.reopen(job, state=state)
        assert ledger.get_or_create(JOB).id == job.id, state
    for state in (JobState.FAILED, JobState.CANCELED, JobState.LOST):
        ledger.reopen(ledger.get_or_create(JOB), state=state)
        assert ledger.get_or_create(JOB).id != job.id, state
    assert ledger.get_or_create(Job("", "fal", "another model", "default", JOB.digest)).model == "another model"


def test_a_job_that_has_ended_stays_so(ledger: Ledger) -> None:
    job = ledger.get_or_create(JOB)
    ledger.update(job, state=JobState.DONE, result="clip.mp4")
    for state in (JobState.RUNNING, JobState.FAILED, JobState.CANCELED):
        assert ledger.update(job, state=state).state == JobState.DONE
    assert Ledger(ledger.folder).get(job.id).result == "clip.mp4"


def test_jobs_are_found_by_their_names(ledger: Ledger) -> None:
    job = ledger.update(ledger.get_or_create(JOB), remote_id="req-1")
    for name in (job.id, job.short_id, "req-1"):
        assert ledger.find(name) == job
    ledger.get_or_create(replace(JOB, digest="e" * 64))  # its provider has no id for it yet
    for name in ("", job.id[:7], "req", "%", "_" * 8):
        assert ledger.find(name) is None, name


def test_an_id_that_was_mistyped_can_be_put_right(ledger: Ledger) -> None:
    job = ledger.attach(ledger.update(ledger.get_or_create(JOB), state=JobState.SUBMIT_UNKNOWN, sent=True), "req-l")
    with pytest.raises(RemoteError, match="already has the id req-l"):
        ledger.attach(job, "req-1")
    ledger.update(job, state=JobState.LOST, error_kind=ErrorKind.LOST.value, error="nobody knows it")
    found = ledger.attach(job, "req-1")
    assert (found.remote_id, found.state, found.error) == ("req-1", JobState.RUNNING, "")
    done = ledger.update(job, state=JobState.DONE, result="clip.mp4")
    assert ledger.attach(job, "req-1") == done, "what is there is not fetched anew"


def test_several_processes_share_a_ledger(ledger: Ledger) -> None:
    """Eight of them would buy 80 clips at $0.50; a limit of $10 lets exactly 20 pass, whoever comes first."""
    runs = [subprocess.Popen([sys.executable, "-c", SPENDERS, str(ledger.folder), str(number)], cwd=ROOT,
                             stdout=subprocess.PIPE, text=True) for number in range(8)]
    said = [run.communicate(timeout=120)[0].split() for run in runs]
    assert len({shared for shared, _ in said}) == 1
    assert sum(int(bought) for _, bought in said) == 20
    assert ledger.spent() == 10.0


def test_what_was_not_bought_is_not_counted(ledger: Ledger) -> None:
    job = ledger.authorize(ledger.get_or_create(JOB), Cost(3.0), Limits())
    assert ledger.spent() == 3.0
    ledger.update(job, state=JobState.FAILED)
    assert ledger.spent() == 0.0


def test_what_is_given_up_may_be_bought_anew_and_stays_spent(ledger: Ledger) -> None:
    job = ledger.authorize(ledger.get_or_create(JOB), Cost(0.5), Limits())
    job = ledger.update(job, sent=True, remote_id="theirs", state=JobState.RUNNING)
    with ledger.lock(job), pytest.raises(RemoteError, match="Stop that run first"):
        ledger.give_up(job)
    assert ledger.get(job.id).state == JobState.RUNNING
    ledger.give_up(job)
    assert ledger.get_or_create(JOB).id != job.id and ledger.spent() == 0.5
    unknown = ledger.authorize(ledger.get_or_create(JOB), Cost(0.25), Limits())
    ledger.give_up(ledger.update(unknown, sent=True, state=JobState.SUBMIT_UNKNOWN))  # not found at the provider
    assert ledger.spent() == 0.5


@pytest.mark.parametrize(("price", "limits", "said"), [
    (2.0, Limits(clip=1.9), "more than max_cost"), (2.0, Limits(day=1.9), "24 hours"), (None, Limits(clip=9.0), "not "
                                                                                                                "known"),
])
def test_limits(ledger: Ledger, price: float | None, limits: Limits, said: str) -> None:
    with pytest.raises(RemoteError, match=said) as caught:
        ledger.authorize(ledger.get_or_create(JOB), Cost(price), limits)
    assert caught.value.kind == ErrorKind.BUDGET and ledger.spent() == 0.0


@pytest.mark.parametrize(("limits", "budget", "said"), [
    (Limits(clip=3.0), Limits(clip=1.9), "most for a clip in Settings > Wan 2.2 > Budget"),
    (Limits(clip=1.9), Limits(clip=3.0), "more than max_cost,"),
    (Limits(day=9.0), Limits(day=5.9), "most for a day in Settings > Wan 2.2 > Budget"),
    (Limits(day=5.9), Limits(day=9.0), "more than max_cost_per_day,"),
])
def test_of_the_nodes_limits_and_the_budget_the_stricter_holds(ledger: Ledger, limits: Limits, budget: Limits,
                                                               said: str) -> None:
    for digest in ("one", "two"):
        ledger.authorize(ledger.get_or_create(replace(JOB, digest=digest)), Cost(2.0), Limits(), Limits(3.0, 9.0))
    with pytest.raises(RemoteError, match=re.escape(said)):
        ledger.authorize(ledger.get_or_create(JOB), Cost(2.0), limits, budget)
    assert ledger.spent() == 4.0


def test_a_lock_is_held_by_one(ledger: Ledger) -> None:
    from filelock import Timeout

    job = ledger.get_or_create(JOB)
    with ledger.lock(job).acquire(timeout=0), pytest.raises(Timeout):
        Ledger(ledger.folder).lock(job).acquire(timeout=0)
    ledger.lock(job).acquire(timeout=0)


def test_a_damaged_ledger_is_told(ledger: Ledger) -> None:
    ledger.get_or_create(JOB)
    for file in ledger.folder.glob("jobs.sqlite*"):
        file.write_bytes(b"no database, but long enough to look at" * 100)
    with pytest.raises(RemoteError, match="cannot be used") as caught:
        Ledger(ledger.folder).get_or_create(JOB)
    assert str(ledger.folder) in str(caught.value)


def test_what_was_committed_leaves_the_drives_own_cache_too(tmp_path: Path) -> None:
    with opened(tmp_path) as base:
        assert base.execute("PRAGMA fullfsync").fetchone() == (1,)
