"""The ledger: every remote job, on disk before money is spent, in the SQLite file of ComfyUI's user directory."""

from __future__ import annotations

import json
import math
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from .budget import NO_LIMITS, Cost, Limits, check_limits
from .database import create, opened, writing
from .errors import ErrorKind, RemoteError
from .job import ENDED, OVER, Job, JobState

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, provider TEXT NOT NULL, model TEXT NOT NULL, profile TEXT NOT NULL, digest TEXT NOT NULL,
    state TEXT NOT NULL, remote_id TEXT NOT NULL, sent INTEGER NOT NULL, created REAL NOT NULL,
    submitted REAL NOT NULL, updated REAL NOT NULL, price REAL, price_source TEXT NOT NULL, image_mark TEXT NOT NULL,
    result TEXT NOT NULL, error_kind TEXT NOT NULL, error TEXT NOT NULL, summary TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_digest ON jobs (digest, created);
CREATE INDEX IF NOT EXISTS jobs_by_remote_id ON jobs (remote_id);
CREATE INDEX IF NOT EXISTS jobs_by_created ON jobs (created);
CREATE INDEX IF NOT EXISTS jobs_by_updated ON jobs (updated);
"""
_COLUMNS = ("id", "provider", "model", "profile", "digest", "state", "remote_id", "sent", "created", "submitted",
            "updated", "price", "price_source", "image_mark", "result", "error_kind", "error", "summary")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM jobs"
DAY = 24 * 3600.0


class Ledger:
    """The jobs of one ComfyUI user directory; safe for several threads and processes."""

    def __init__(self, folder: Path, on_change: Callable[[str], None] = lambda job_id: None) -> None:
        """on_change: called with a job's id after each write of it, in the thread that wrote."""
        self.folder, self._on_change = folder, on_change
        create(folder, _SCHEMA)

    # ---- a job's life, in order --------------------------------------------------------------------------------

    def get_or_create(self, job: Job) -> Job:
        """Return the reusable job of the same request and model; else store `job` as new and return it.

        Reusable: under way, finished, or of unknown outcome. There is at most one.
        """
        with writing(self.folder) as base:
            found = _reusable(base, job.digest, [(job.provider, job.model)])
            if found is not None:
                return found
            new = replace(job, id=uuid.uuid4().hex, created=time.time(), updated=time.time())
            base.execute(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
                         _row(new))
        self._on_change(new.id)
        return new

    def authorize(self, job: Job, cost: Cost, limits: Limits, budget: Limits = NO_LIMITS) -> Job:
        """Check the limits and store, in one transaction, that the paid request is about to leave.

        Money under way counts as spent. `sent` stays: a request with an idempotency key may have left before.
        limits: the node's own. budget: the user's for all nodes.
        Raises RemoteError (BUDGET).
        """
        with writing(self.folder) as base:
            check_limits(cost, _spent(base, time.time() - DAY, job.id), limits, budget)
            base.execute("UPDATE jobs SET state = ?, price = ?, price_source = ?, submitted = ?, updated = ? "
                         "WHERE id = ?", (JobState.SUBMITTING.value, cost.usd, cost.source, time.time(), time.time(),
                                          job.id))
            new = _get(base, job.id)
        self._on_change(job.id)
        return new

    def update(self, job: Job, **changes: object) -> Job:
        """Write changes of a job and return it. The state of an ended job stays, whatever a late reply says."""
        with writing(self.folder) as base:
            now = _get(base, job.id)
            if now.state in ENDED and "state" in changes and now.state != changes["state"]:
                return now
            new = _write(base, replace(now, **changes))
        self._on_change(job.id)
        return new

    def note_bill(self, job: Job, price: float | None, source: str) -> None:
        """Write what a job really costs, in US dollars. Its time of change stays: that is when it ended."""
        with writing(self.folder) as base:
            base.execute("UPDATE jobs SET price = ?, price_source = ? WHERE id = ?", (price, source, job.id))
        self._on_change(job.id)

    def reopen(self, job: Job, **changes: object) -> Job:
        """Write changes as `update`, also to an ended job: the user found it again, or its file is gone."""
        with writing(self.folder) as base:
            new = _write(base, replace(_get(base, job.id), **changes))
        self._on_change(job.id)
        return new

    def attach(self, job: Job, remote_id: str) -> Job:
        """Give a job of unknown outcome the id that the user found at the provider; a mistyped one may be replaced.

        Raises RemoteError (VALIDATION) when the job or the id is taken.
        """
        job = self.get(job.id)
        if job.state == JobState.DONE and job.remote_id == remote_id:
            return job
        if job.remote_id not in ("", remote_id) and job.error_kind != ErrorKind.LOST.value:
            raise RemoteError(ErrorKind.VALIDATION, f"The job {job.short_id} already has the id {job.remote_id} at its "
                              "provider.")
        if job.remote_id != remote_id and self.has_remote_id(job.provider, remote_id):
            raise RemoteError(ErrorKind.VALIDATION, f"{remote_id} belongs to another job of the ledger.")
        return self.reopen(job, remote_id=remote_id, sent=True, state=JobState.RUNNING, error="", error_kind="",
                           **job.estimate())

    def give_up(self, job: Job) -> Job:
        """Abandon a job, so that the same request may be bought anew; if its provider knows it, it counts as spent.

        Raises RemoteError (VALIDATION) while a run waits for it.
        """
        try:
            with self.lock(job):
                job = self.get(job.id)
                if job.remote_id:
                    return self.reopen(job, state=JobState.LOST, error="given up by the user")
                return self.reopen(job, state=JobState.CANCELED, error="given up by the user", price=0.0,
                                   price_source="not known to its provider")
        except Timeout:
            raise RemoteError(ErrorKind.VALIDATION, f"A run is waiting for the job {job.short_id}. Stop that run "
                              "first.") from None

    def lock(self, job: Job) -> FileLock:
        """Return the lock whose holder alone works on the job; a file lock, so that a killed process releases it."""
        (self.folder / "locks").mkdir(exist_ok=True)
        return FileLock(self.folder / "locks" / f"{job.id}.lock", timeout=0, thread_local=False)

    # ---- questions ---------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Return a job. Raises KeyError for an unknown id."""
        with opened(self.folder) as base:
            return _get(base, job_id)

    def find(self, name: str) -> Job | None:
        """Return the newest job of this id, beginning of an id (8 characters or more), or provider's id."""
        if not name:
            return None  # the remote_id of every job that its provider does not know yet
        with opened(self.folder) as base:
            row = base.execute(f"{_SELECT} WHERE remote_id = ?1 OR id = ?1 OR "
                               "(length(?1) >= 8 AND substr(id, 1, length(?1)) = ?1) ORDER BY created DESC",
                               (name,)).fetchone()
        return None if row is None else _job(row)

    def reusable(self, digest: str, models: Sequence[tuple[str, str]]) -> Job | None:
        """Return the newest reusable job of a request at one of these (provider, model); see get_or_create."""
        with opened(self.folder) as base:
            return _reusable(base, digest, models)

    def jobs(self, states: Sequence[JobState] = tuple(JobState), newest: int = 1000,
             before: float = math.inf) -> list[Job]:
        """Return at most `newest` jobs in these states, created before a time (seconds since 1970), newest first."""
        marks = ", ".join("?" * len(states))
        with opened(self.folder) as base:
            rows = base.execute(f"{_SELECT} WHERE state IN ({marks}) AND created < ? ORDER BY created DESC LIMIT ?",
                                (*(state.value for state in states), before, newest)).fetchall()
        return [_job(row) for row in rows]

    def updated_since(self, since: float) -> list[Job]:
        """Return the jobs written since a time, in seconds since 1970."""
        with opened(self.folder) as base:
            return [_job(row) for row in base.execute(f"{_SELECT} WHERE updated >= ?", (since,))]

    def unbilled(self, provider: str, profile: str, billed: Sequence[str]) -> list[Job]:
        """Return the ended jobs of an account, of the last 24 hours and the newest first, whose bill nobody has read.

        billed: beginnings of Job.price_source that say that it was.
        """
        with opened(self.folder) as base:
            rows = base.execute(f"{_SELECT} WHERE provider = ? AND profile = ? AND submitted >= ? AND remote_id != '' "
                                "ORDER BY submitted DESC", (provider, profile, time.time() - DAY)).fetchall()
        return [job for job in map(_job, rows) if job.state in ENDED and not job.price_source.startswith(tuple(billed))]

    def has_remote_id(self, provider: str, remote_id: str) -> bool:
        """Return whether a provider's job is in the ledger."""
        with opened(self.folder) as base:
            return base.execute("SELECT 1 FROM jobs WHERE provider = ? AND remote_id = ?",
                                (provider, remote_id)).fetchone() is not None

    def spent(self, seconds: float = DAY, except_job: str = "") -> float:
        """Return the US dollars that were or may have been spent in the last seconds; except_job: an id left out."""
        with opened(self.folder) as base:
            return _spent(base, time.time() - seconds, except_job)


def _get(base: sqlite3.Connection, job_id: str) -> Job:
    row = base.execute(f"{_SELECT} WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise KeyError(job_id)
    return _job(row)


def _reusable(base: sqlite3.Connection, digest: str, models: Sequence[tuple[str, str]]) -> Job | None:
    rows = base.execute(f"{_SELECT} WHERE digest = ? ORDER BY created DESC", (digest,)).fetchall()
    return next((job for job in map(_job, rows)
                 if job.state not in OVER and (job.provider, job.model) in models), None)


def _spent(base: sqlite3.Connection, since: float, except_job: str) -> float:
    # A job that ended without a clip has the price 0 unless its provider may bill it all the same. (Jobs that ended so
    # before prices were set to 0 count for a day.)
    return base.execute("SELECT COALESCE(SUM(price), 0) FROM jobs WHERE submitted >= ? AND id != ? AND "
                        "(sent = 1 OR state = ?)", (since, except_job, JobState.SUBMITTING.value)).fetchone()[0]


def _write(base: sqlite3.Connection, job: Job) -> Job:
    job = replace(job, updated=time.time())
    values = ", ".join(f"{name} = ?" for name in _COLUMNS)
    base.execute(f"UPDATE jobs SET {values} WHERE id = ?", (*_row(job), job.id))
    return job


def _row(job: Job) -> tuple[object, ...]:
    values = {**job.__dict__, "state": job.state.value, "sent": int(job.sent), "summary": json.dumps(job.summary)}
    return tuple(values[name] for name in _COLUMNS)


def _job(row: tuple[object, ...]) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Job(**{**values, "state": JobState(values["state"]), "sent": bool(values["sent"]),
                  "summary": json.loads(values["summary"])})
