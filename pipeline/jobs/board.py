"""The list of jobs: of the ledger and of ComfyUI's queue together, in pages or what has changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..remote.job import Job, State
from ..remote.ledger import Ledger
from ..remote.origins import Origins
from .entry import ENDED, Entry, asked_of, remote_entry
from .queue import Queue, asked_in, only_buys, workflow_of

MOST = 200
"""Entries of one page."""
OPEN = tuple(state for state in State if state not in ENDED)
"""Of these jobs the run that drives them may come and go without a word in the ledger."""
OVERLAP = 60.0
"""Seconds by which changes are told again: a row may carry an earlier time than that at which it could be read."""


@dataclass(frozen=True)
class Board:
    """What the list is made of. Methods raise RemoteError when the ledger cannot be used."""

    ledger: Ledger
    origins: Origins
    queue: Queue
    output: Path
    """ComfyUI's output folder."""
    budget: float = 0.0
    """US dollars that a day may cost; 0: no limit."""

    def page(self, before: float, most: int) -> dict[str, Any]:
        """The newest entries that were made before a time: jobs, more (whether there are older ones), and `_now`."""
        most = max(1, min(most, MOST))
        jobs = self.ledger.jobs(newest=most + 1, before=before)
        runs = [run for run in self._runs(0.0) if run.created < before]
        entries = sorted((*self._remote(jobs), *runs), key=lambda entry: entry.created, reverse=True)
        return {"jobs": list(map(asdict, entries[:most])), "more": len(entries) > most, **self._now()}

    def changes(self, since: float) -> dict[str, Any]:
        """Entries of which something changed since a time that an earlier answer gave, and all that are not over.

        A local run that was under way, and is not among them, has left the queue without a trace.
        """
        since -= OVERLAP
        jobs = {job.id: job for job in (*self.ledger.jobs(OPEN, MOST), *self.ledger.changed(since))}
        entries = (*self._remote([*jobs.values()]), *self._runs(since))
        return {"jobs": list(map(asdict, entries)), **self._now()}

    def request(self, name: str) -> Any:
        """What was asked of a job or a run, as JSON. Raises KeyError for one that is not known."""
        item = self.queue.find(name)
        return asked_of(self.ledger.get(name)) if item is None else asked_in(item[2])

    def workflow(self, name: str) -> dict[str, Any]:
        """The workflow that made it, as Origins keeps it. Raises KeyError when it is not known."""
        item = self.queue.find(name)
        found = self.origins.workflow(name) if item is None else workflow_of(item)
        if found is None:
            raise KeyError(name)
        return found

    def _now(self) -> dict[str, Any]:
        return {"now": time.time(), "spent": self.ledger.spent(), "budget": self.budget or None}

    def _runs(self, since: float) -> list[Entry]:
        runs = list(self.queue.entries(since))
        buying = {run.id for run in runs if only_buys(self.queue.find(run.id)[2])}
        hidden = self.origins.with_jobs(buying)
        return [run for run in runs if run.id not in hidden and not (run.id in buying and run.state == "done")]

    def _remote(self, jobs: Sequence[Job]) -> Iterable[Entry]:
        names = [job.id for job in jobs]
        drivers, kept = self.origins.drivers(names), self.origins.kept(names)
        running = {item[1] for item in self.queue.running}
        for job in jobs:
            run = drivers.get(job.id, "")
            yield remote_entry(job, run if run in running else None, job.id in kept, self.queue.error(run), self.output)
