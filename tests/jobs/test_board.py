"""The list of jobs: of the ledger and of ComfyUI's queue together; and what is kept of a workflow."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from pipeline.jobs.board import JobBoard
from pipeline.jobs.queue import QueueSnapshot
from pipeline.remote.budget import Cost, Limits
from pipeline.remote.database import opened
from pipeline.remote.job import Job, JobState
from pipeline.remote.job_runs import JobRuns
from pipeline.remote.ledger import Ledger

REMOTE = {"1": {"class_type": "Wan22RemoteImageToVideo", "inputs": {"image": ["9", 0], "prompt": "pan",
                                                                    "provider": "fal.ai"}}}
LOCAL = {"1": {"class_type": "Wan22EncodePrompt", "inputs": {"prompt": "zoom"}},
         "2": {"class_type": "Wan22Sampler", "inputs": {"positive": ["1", 0]}}}
OTHERS = {"1": {"class_type": "KSampler", "inputs": {}}}


def item(name: str, graph: dict, created: float) -> tuple[Any, ...]:
    return (0, name, graph, {"create_time": created * 1000}, ["2"], {})


def ended(name: str, graph: dict, created: float, kind: str = "execution_success", **outputs: Any) -> dict[str, Any]:
    """An entry of ComfyUI's history, of a run that took 5 seconds."""
    messages = [("execution_start", {"timestamp": created * 1000}),
                (kind, {"timestamp": (created + 5) * 1000, "exception_message": "No key.\n"})]
    return {"prompt": item(name, graph, created), "outputs": outputs, "status": {"messages": messages}}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "own")


def board(ledger: Ledger, *, running: tuple = (), pending: tuple = (), history: dict | None = None,
          progress: dict | None = None) -> JobBoard:
    return JobBoard(ledger, JobRuns(ledger.folder), QueueSnapshot(running, pending, history or {}, progress or {}),
                 ledger.folder.parent / "output", 5.0)


def bought(ledger: Ledger, digest: str, state: JobState = JobState.RUNNING) -> Job:
    job = ledger.get_or_create(Job("", "wavespeed", "model", "default", digest, summary={"prompt": digest}))
    ledger.authorize(job, Cost(0.5), Limits())
    return ledger.update(job, state=state, sent=True, remote_id=digest)


def shown(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in answer["jobs"]}


def test_runs_as_comfyui_tells_of_them(ledger: Ledger) -> None:
    file = {"filename": "a.mp4", "subfolder": "wan22", "type": "output", "more": 1}
    found = shown(board(
        ledger, running=(item("at work", LOCAL, 5.0), item("core", OTHERS, 5.0)), pending=(item("waits", REMOTE, 6.0),),
        history={"good": ended("good", LOCAL, 1.0, ui={"images": [{"filename": "a.png", "type": "temp"}, file]}),
                 "bad": ended("bad", LOCAL, 2.0, "execution_error"),
                 "stopped": ended("stopped", REMOTE, 3.0, "execution_interrupted"),
                 "from the cache": ended("from the cache", REMOTE, 4.0), "core 2": ended("core 2", OTHERS, 4.0)},
        progress={"1": {"state": "finished", "value": 1, "max": 1}, "2": {"state": "running", "value": 3, "max": 9}},
    ).page(9e9, 50))
    assert list(found) == ["waits", "at work", "stopped", "bad", "good"]
    assert {name: entry["state"] for name, entry in found.items()} == {
        "waits": "queued", "at work": "running", "stopped": "canceled", "bad": "failed", "good": "done"}
    assert found["at work"]["progress"] == {"node": "Wan22Sampler", "value": 3, "max": 9}
    assert found["at work"]["run"] == "at work" and found["good"]["run"] is None
    assert found["waits"]["provider"] == "fal.ai" and found["bad"]["error"] == "No key."
    assert found["good"]["file"] == {"filename": "a.mp4", "subfolder": "wan22", "type": "output"}
    assert (found["good"]["began"], found["good"]["ended"], found["good"]["prompt"]) == (1.0, 6.0, "zoom")


def test_a_run_steps_back_for_its_jobs(ledger: Ledger) -> None:
    """Also once another run has taken the job over: the first one is no clip of its own."""
    job = bought(ledger, "one")
    for run in ("first", "second"):
        board(ledger).job_runs.record(job.id, run, {"graph": REMOTE})
    now = board(ledger, running=(item("second", REMOTE, 2.0),),
                history={"first": ended("first", REMOTE, 1.0, "execution_error")})
    (entry,) = now.page(9e9, 50)["jobs"]
    assert (entry["id"], entry["run"], entry["cancels"], entry["price"]) == (job.id, "second", False, 0.5)
    assert board(ledger).page(9e9, 50)["jobs"][0]["run"] is None, "after a restart nobody drives it"
    both = board(ledger, running=(item("second", REMOTE | LOCAL, 2.0),))
    assert set(shown(both.page(9e9, 50))) == {job.id, "second"}, "a local clip of the same run stands for itself"


def test_what_became_of_runs(ledger: Ledger) -> None:
    """However old they are, and when their jobs stand for them in the list, or ComfyUI has forgotten them."""
    first, second, kept = (bought(ledger, name) for name in ("one", "two", "three"))
    for job, run in ((first, "buys"), (second, "buys"), (first, "joins"), (kept, "forgotten")):
        board(ledger).job_runs.record(job.id, run, None)
    ledger.update(kept, state=JobState.DONE)
    names = ["buys", "joins", "forgotten", "local", "from the cache", "core", "nobody's"]
    history = {"local": ended("local", LOCAL, 1.0), "from the cache": ended("from the cache", REMOTE, 2.0),
               "core": ended("core", OTHERS, 3.0), "joins": ended("joins", REMOTE, 4.0),
               "not asked for": ended("not asked for", LOCAL, 5.0)}

    def told() -> dict[str, tuple[str, str]]:
        runs = board(ledger, running=(item("buys", REMOTE, 6.0),), history=history).of_runs(names)["runs"]
        return {run: (entry["id"], entry["state"]) for run, entry in runs.items()}

    same = {name: (name, "done") for name in ("local", "from the cache", "core")} | {"forgotten": (kept.id, "done")}
    assert told() == same | {"buys": (first.id, "running"), "joins": (first.id, "running")}
    ledger.update(first, state=JobState.DONE)
    assert told() == same | {"buys": (second.id, "running"), "joins": (first.id, "done")}
    ledger.update(second, state=JobState.FAILED, error="No.")
    assert told()["buys"] == ("buys", "running"), "it may go on to another clip"


def test_why_a_run_failed_is_told_of_its_job(ledger: Ledger) -> None:
    job = bought(ledger, "one")
    JobRuns(ledger.folder).record(job.id, "run", None)
    now = board(ledger, history={"run": ended("run", REMOTE, 1.0, "execution_error")})
    assert now.page(9e9, 50)["jobs"][0]["error"] == "No key."
    ledger.update(job, state=JobState.DONE)
    assert now.page(9e9, 50)["jobs"][0]["error"] == ""


def test_pages_hold_every_job_once(ledger: Ledger) -> None:
    names = [bought(ledger, str(number)).id for number in range(7)]
    history = {f"run {n}": ended(f"run {n}", LOCAL, n) for n in range(4)}
    found, before, more = [], 9e9, True
    while more:
        answer = board(ledger, history=history).page(before, 3)
        found += [entry["id"] for entry in answer["jobs"]]
        before, more = answer["jobs"][-1]["created"], answer["more"]
    assert found == [*reversed(names), "run 3", "run 2", "run 1", "run 0"]
    assert answer["spent"] == 3.5 and answer["budget"] == 5.0


def test_changes_are_what_was_written_since_and_what_is_under_way(ledger: Ledger) -> None:
    old, open_still = bought(ledger, "old", JobState.DONE), bought(ledger, "open")
    with opened(ledger.folder) as base:
        base.execute("UPDATE jobs SET updated = updated - 1000")
    new = bought(ledger, "new")
    history = {name: ended(name, LOCAL, created) for name, created in (("long ago", 1.0), ("just now", new.created))}
    now = board(ledger, pending=(item("waits", LOCAL, 1.0),), history=history)
    assert set(shown(now.changes(new.created))) == {new.id, open_still.id, "waits", "just now"}
    ledger.reopen(old, result="elsewhere.mp4")
    assert old.id in shown(now.changes(new.created))


def test_the_ledger_tells_of_every_change(tmp_path: Path) -> None:
    told: list[str] = []
    ledger = Ledger(tmp_path, told.append)
    job = bought(ledger, "one")
    assert told == [job.id] * 3
    ledger.get_or_create(Job("", "wavespeed", "model", "default", "one"))
    assert len(told) == 3, "nothing was written"
    ledger.give_up(job)
    assert len(told) == 4


def test_a_workflow_is_kept_without_what_may_be_secret(ledger: Ledger) -> None:
    link = "https://user:pass@civitai.com/api/download/models/5?token=SECRET&type=Model"
    drawn = {"nodes": [{"type": "Wan22Lora", "widgets_values": [link, 1.0]}], "extra": {"note": f"see {link} there"}}
    job_runs, job = JobRuns(ledger.folder), bought(ledger, "one")
    job_runs.record(job.id, "run", {"workflow": drawn})
    job_runs.record(job.id, "another run", {"workflow": {"nodes": []}})
    with opened(ledger.folder) as base:
        (row,) = base.execute("SELECT packed FROM workflows").fetchall()
    kept = zlib.decompress(row[0]).decode()
    assert "SECRET" not in kept and "pass" not in kept
    found = board(ledger).workflow(job.id)
    assert found["shortened"] and found == json.loads(kept)
    assert found["workflow"]["nodes"][0]["widgets_values"] == ["https://civitai.com/api/download/models/5", 1.0]
    with pytest.raises(KeyError):
        board(ledger).workflow(bought(ledger, "of another page").id)


def test_what_was_asked(ledger: Ledger) -> None:
    job = bought(ledger, "one")
    graph = LOCAL | {"3": {"class_type": "Wan22Lora", "inputs": {"source": "https://a.example/b?sig=SECRET"}}}
    now = board(ledger, history={"run": ended("run", graph, 1.0)})
    assert now.request(job.id) == {"provider": "wavespeed", "model": "model", "prompt": "one"}
    assert now.request("run") == [{"type": "Wan22EncodePrompt", "inputs": {"prompt": "zoom"}},
                                  {"type": "Wan22Sampler", "inputs": {}},
                                  {"type": "Wan22Lora", "inputs": {"source": "https://a.example/b"}}]
    assert now.workflow("run") == {"graph": graph}
    with pytest.raises(KeyError):
        now.request("nobody's")
