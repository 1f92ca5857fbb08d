"""Every remote job, on disk before its money is spent: a table in the SQLite file of ComfyUI's user directory."""

from __future__ import annotations

import json
import math
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from . import ui_names as places
from .database import create, opened, writing
from .errors import Kind, RemoteError
from .job import OVER, UNSENT, Job, State

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
_END = {*OVER, State.DONE}
DAY = 24 * 3600.0


@dataclass(frozen=True)
class Limits:
    """US dollars that may be spent; 0: no limit."""

    clip: float = 0.0
    day: float = 0.0


NO_LIMITS = Limits()


def _row(job: Job) -> tuple[object, ...]:
    values = {**job.__dict__, "state": job.state.value, "sent": int(job.sent), "summary": json.dumps(job.summary)}
    return tuple(values[name] for name in _COLUMNS)


def _job(row: sqlite3.Row) -> Job:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Job(**{**values, "state": State(values["state"]), "sent": bool(values["sent"]),
                  "summary": json.loads(values["summary"])})


def _write(base: sqlite3.Connection, job: Job) -> Job:
    job = replace(job, updated=time.time())
    values = ", ".join(f"{name} = ?" for name in _COLUMNS)
    base.execute(f"UPDATE jobs SET {values} WHERE id = ?", (*_row(job), job.id))
    return job


class Ledger:
    """The jobs of one ComfyUI user directory; may be used by several threads and processes at once."""

    def __init__(self, folder: Path, on_change: Callable[[str], None] = lambda job_id: None) -> None:
        """on_change: told the id of a job whenever something of it was written, in the thread that wrote it."""
        self.folder, self._on_change = folder, on_change
        create(folder, _SCHEMA)

    def claim(self, job: Job) -> Job:
        """The job of the same request at the same model that is still of use; else `job`, entered as new.

        Of use: under way, finished, or of unknown outcome. There is at most one such job.
        """
        with writing(self.folder) as base:
            known = self._known(base, job.digest, [(job.provider, job.model)])
            if known is not None:
                return known
            new = replace(job, id=uuid.uuid4().hex, created=time.time(), updated=time.time())
            base.execute(f"INSERT INTO jobs ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
                         _row(new))
        self._on_change(new.id)
        return new

    def known(self, digest: str, models: Sequence[tuple[str, str]]) -> Job | None:
        """The newest job of the same request, at one of these (provider, model), that is still of use."""
        with opened(self.folder) as base:
            return self._known(base, digest, models)

    def update(self, job: Job, **changes: object) -> Job:
        """Write changes of a job and return it. A job that is over stays so, whatever a late answer says."""
        with writing(self.folder) as base:
            now = self._get(base, job.id)
            if now.state in _END and "state" in changes and now.state != changes["state"]:
                return now
            new = _write(base, replace(now, **changes))
        self._on_change(job.id)
        return new

    def reopen(self, job: Job, **changes: object) -> Job:
        """As `update`, for a job that was over: the user found it again, or its file has gone."""
        with writing(self.folder) as base:
            new = _write(base, replace(self._get(base, job.id), **changes))
        self._on_change(job.id)
        return new

    def attach(self, job: Job, remote_id: str) -> Job:
        """Give a job of unknown outcome the id that the user found at the provider, which may have been mistyped
        before. Raises RemoteError."""
        job = self.get(job.id)
        if job.state == State.DONE and job.remote_id == remote_id:
            return job
        if job.remote_id not in ("", remote_id) and job.error_kind != Kind.LOST.value:
            raise RemoteError(Kind.VALIDATION, f"The job {job.short_id} already is {job.remote_id} at its provider.")
        if job.remote_id != remote_id and self.owns(job.provider, remote_id):
            raise RemoteError(Kind.VALIDATION, f"{remote_id} belongs to another job of the ledger.")
        return self.reopen(job, remote_id=remote_id, sent=True, state=State.RUNNING, error="", error_kind="")

    def give_up(self, job: Job) -> Job:
        """Note that the user does not want a job any more; the same request may then be bought anew. One that is known
        at its provider still counts as spent. Raises RemoteError while a run drives it."""
        try:
            with self.driver(job):
                job = self.get(job.id)
                return self.reopen(job, state=State.LOST if job.remote_id else State.CANCELED,
                                   error="given up by the user")
        except Timeout:
            raise RemoteError(Kind.VALIDATION, f"A run is waiting for the job {job.short_id}. Stop that run first.",
                              ) from None

    def about_to_spend(self, job: Job, price: float | None, source: str, limits: Limits,
                       budget: Limits = NO_LIMITS) -> Job:
        """Note the price and that the paid request is about to leave; money under way counts as spent.

        limits: the node's own; budget: the user's for all nodes. Both hold.
        Raises RemoteError (BUDGET) when a limit does not allow it, or a limit is set and the price is not known.
        """
        with writing(self.folder) as base:
            spent = self._spent(base, time.time() - DAY, job.id)
            check_limits(price, spent, limits, budget)
            base.execute("UPDATE jobs SET state = ?, price = ?, price_source = ?, submitted = ?, updated = ?, sent = 0 "
                         "WHERE id = ?", (State.SUBMITTING.value, price, source, time.time(), time.time(), job.id))
            new = self._get(base, job.id)
        self._on_change(job.id)
        return new

    def get(self, job_id: str) -> Job:
        """A job as it stands. Raises KeyError when there is none of this id."""
        with opened(self.folder) as base:
            return self._get(base, job_id)

    def find(self, name: str) -> Job | None:
        """The newest job by its id, the beginning of it (8 letters at least), or the provider's id; None for none."""
        if not name:
            return None  # what every job has that its provider does not know yet
        with opened(self.folder) as base:
            row = base.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE remote_id = ?1 OR id = ?1 OR "
                               "(length(?1) >= 8 AND substr(id, 1, length(?1)) = ?1) ORDER BY created DESC",
                               (name,)).fetchone()
        return None if row is None else _job(row)

    def jobs(self, states: Sequence[State] = tuple(State), newest: int = 1000, before: float = math.inf) -> list[Job]:
        """Jobs in these states, the newest first; those that were entered before a time, in seconds since 1970."""
        marks = ", ".join("?" * len(states))
        with opened(self.folder) as base:
            rows = base.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE state IN ({marks}) AND created < ? "
                                "ORDER BY created DESC LIMIT ?",
                                (*(s.value for s in states), before, newest)).fetchall()
        return [_job(row) for row in rows]

    def changed(self, since: float) -> list[Job]:
        """Jobs of which something was written since a time, in seconds since 1970."""
        with opened(self.folder) as base:
            rows = base.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE updated >= ?", (since,)).fetchall()
        return [_job(row) for row in rows]

    def owns(self, provider: str, remote_id: str) -> bool:
        """Whether a provider's job is already one of ours."""
        with opened(self.folder) as base:
            return base.execute("SELECT 1 FROM jobs WHERE provider = ? AND remote_id = ?",
                                (provider, remote_id)).fetchone() is not None

    def spent(self, seconds: float = DAY, but: str = "") -> float:
        """US dollars of the last so many seconds: what was paid or may have been. but: id of a job not counted."""
        with opened(self.folder) as base:
            return self._spent(base, time.time() - seconds, but)

    def driver(self, job: Job) -> FileLock:
        """The lock whose holder alone drives the job; of the process, so that a kill lets it go."""
        (self.folder / "locks").mkdir(exist_ok=True)
        return FileLock(self.folder / "locks" / f"{job.id}.lock", timeout=0, thread_local=False)

    @staticmethod
    def _get(base: sqlite3.Connection, job_id: str) -> Job:
        row = base.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise KeyError(job_id)
        return _job(row)

    @staticmethod
    def _known(base: sqlite3.Connection, digest: str, models: Sequence[tuple[str, str]]) -> Job | None:
        rows = base.execute(f"SELECT {', '.join(_COLUMNS)} FROM jobs WHERE digest = ? ORDER BY created DESC",
                            (digest,)).fetchall()
        return next((job for job in map(_job, rows)
                     if job.state not in OVER and (job.provider, job.model) in models), None)

    @staticmethod
    def _spent(base: sqlite3.Connection, since: float, but: str) -> float:
        free = [state.value for state in (*UNSENT, State.FAILED, State.CANCELED)]
        marks = ", ".join("?" * len(free))
        return base.execute(f"SELECT COALESCE(SUM(price), 0) FROM jobs WHERE submitted >= ? AND id != ? AND state NOT "
                            f"IN ({marks})", (since, but, *free)).fetchone()[0]


def check_limits(price: float | None, spent: float, limits: Limits, budget: Limits = NO_LIMITS) -> None:
    """Raise RemoteError (BUDGET) when US dollars, beside those `spent` in 24 hours, are more than may be spent.

    limits: the node's own; budget: the user's for all nodes.
    """
    _check(price, spent, limits, "max_cost", "max_cost_per_day", "Set the limits to 0")
    _check(price, spent, budget, f"the most for a clip in {places.BUDGET}", f"the most for a day in {places.BUDGET}",
           f"Clear {places.BUDGET}")


def _check(price: float | None, spent: float, limits: Limits, clip: str, day: str, off: str) -> None:
    """Raise RemoteError when limits, called `clip` and `day`, do not allow a purchase; `off` says how to lift them."""
    if price is None and (limits.clip or limits.day):
        raise RemoteError(Kind.BUDGET, f"The price of this clip is not known, so {clip if limits.clip else day} cannot "
                          f"hold. {off} to buy it all the same, or choose another provider. Nothing was bought.")
    if price is not None and limits.clip and price > limits.clip:
        raise RemoteError(Kind.BUDGET, f"The clip costs ${price:.3f}, more than {clip}, ${limits.clip:.3f}. Nothing "
                          "was bought.")
    if price is not None and limits.day and spent + price > limits.day:
        raise RemoteError(Kind.BUDGET, f"${spent:.3f} were spent in the last 24 hours and the clip costs ${price:.3f}: "
                          f"together more than {day}, ${limits.day:.3f}. Nothing was bought.")
