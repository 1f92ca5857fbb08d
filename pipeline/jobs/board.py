"""The list of jobs: the ledger's and the queue's entries together, in pages or what has changed."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..remote.job import ENDED, Job, JobState
from ..remote.job_runs import JobRuns
from ..remote.ledger import Ledger
from .entry import JobEntry, remote_entry, request_of_job
from .queue import QueueSnapshot, is_remote_only, request_of_graph

MOST = 200
"""Entries of one page."""
OPEN = tuple(state for state in JobState if state not in ENDED)
"""The run that works on a job in one of these states may come and go without a change in the ledger."""
OVERLAP = 60.0
"""Seconds by which changes are repeated: a row may carry an earlier time than that at which it could be read."""


@dataclass(frozen=True)
class JobBoard:
    """The sources of the list. Methods raise RemoteError when the ledger cannot be used."""

    ledger: Ledger
    job_runs: JobRuns
    queue: QueueSnapshot
    output: Path
    """ComfyUI's output folder."""
    budget: float = 0.0
    """US dollars that a day may cost; 0: no limit."""

    def page(self, before: float, most: int) -> dict[str, Any]:
        """Return the newest entries created before a time: {"jobs", "more": whether there are older ones, and _now}."""
        most = max(1, min(most, MOST))
        jobs = self.ledger.jobs(newest=most + 1, before=before)
        runs = [run for run in self._runs(0.0) if run.created < before]
        entries = sorted((*self._remote(jobs), *runs), key=lambda entry: entry.created, reverse=True)
        return {"jobs": list(map(asdict, entries[:most])), "more": len(entries) > most, **self._now()}

    def changes(self, since: float) -> dict[str, Any]:
        """Return all entries that have not ended, and those that changed since the time that an earlier answer gave.

        A local run that was under way, and is not among them, has left the queue without a trace.
        """
        since -= OVERLAP
        jobs = {job.id: job for job in (*self.ledger.jobs(OPEN, MOST), *self.ledger.updated_since(since))}
        entries = (*self._remote([*jobs.values()]), *self._runs(since))
        return {"jobs": list(map(asdict, entries)), **self._now()}

    def of_runs(self, names: Collection[str]) -> dict[str, Any]:
        """Return {"runs": run -> the entry that tells of it}, however old; without the runs that nobody knows of.

        A run that makes nothing but remote clips is told of by the first of its jobs that has not ended, then by itself
        while it is under way, then by its last job: also after a restart, when ComfyUI has forgotten the run.
        """
        found = {entry.id: entry for entry in self.queue.entries(0.0, names)}
        for run, jobs in self.job_runs.jobs_of(names).items():
            entries = [*self._remote([self.ledger.get(job) for job in jobs])]
            own = found.get(run)
            if own is None or is_remote_only(self.queue.find(run).graph):
                is_open = next((entry for entry in entries if entry.ended is None), None)
                found[run] = is_open or (own if own and own.run else entries[-1])
        return {"runs": {run: asdict(entry) for run, entry in found.items()}}

    def request(self, name: str) -> Any:
        """Return what was asked of a job or a run, as JSON. Raises KeyError for an unknown one."""
        run = self.queue.find(name)
        return request_of_job(self.ledger.get(name)) if run is None else request_of_graph(run.graph)

    def workflow(self, name: str) -> dict[str, Any]:
        """Return the workflow that made it, as JobRuns stores it. Raises KeyError when it is not known."""
        run = self.queue.find(name)
        found = self.job_runs.workflow(name) if run is None else run.workflow
        if found is None:
            raise KeyError(name)
        return found

    def _now(self) -> dict[str, Any]:
        return {"now": time.time(), "spent": self.ledger.spent(), "budget": self.budget or None}

    def _runs(self, since: float) -> list[JobEntry]:
        """Return the queue's entries, without the runs whose clips the ledger has."""
        runs = list(self.queue.entries(since))
        remote_only = {run.id for run in runs if is_remote_only(self.queue.find(run.id).graph)}
        hidden = self.job_runs.runs_with_jobs(remote_only)
        return [run for run in runs if run.id not in hidden and not (run.id in remote_only and run.state == "done")]

    def _remote(self, jobs: Sequence[Job]) -> Iterable[JobEntry]:
        names = [job.id for job in jobs]
        runs, with_workflow = self.job_runs.last_runs(names), self.job_runs.jobs_with_workflow(names)
        running = self.queue.running_ids()
        for job in jobs:
            run = runs.get(job.id, "")
            yield remote_entry(job, run if run in running else None, job.id in with_workflow, self.queue.error(run),
                               self.output)
