"""Runs of a graph that a Notify node watches, on disk as they begin, so that every end of them is reported.

ComfyUI ends a graph at the first node that fails, so a node that reports failures would never get its turn. But it
asks every node for its fingerprint before it runs any: the Notify node records its run here then, and marks it as
reported when its turn comes. A record that is not marked when the run has left the queue, or when the ComfyUI that made
it is gone, is a failure. No event of the server could replace this: execution_error is sent to the canvas that queued
the run, and to nobody when no canvas did.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..remote.database import create, opened, writing
from .outbox import Recipient

_SCHEMA = """
CREATE TABLE IF NOT EXISTS watches (
    prompt_id TEXT NOT NULL, node_id TEXT NOT NULL, url TEXT NOT NULL, profile TEXT NOT NULL, signed INTEGER NOT NULL,
    request TEXT NOT NULL, began REAL NOT NULL, program TEXT NOT NULL, told INTEGER NOT NULL,
    PRIMARY KEY (prompt_id, node_id)
);
"""
_COLUMNS = "prompt_id, node_id, url, profile, signed, request, began"


@dataclass(frozen=True)
class WatchedRun:
    """A run of a graph, and the Notify node that watches it."""

    prompt_id: str
    node_id: str
    to: Recipient
    request: list[dict[str, Any]]
    """As event.request_data gives it."""
    began: float
    """Seconds since 1970."""


class WatchedRuns:
    """The table. A lock file, held for the life of this process, tells other processes that its runs are alive."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._program = folder, uuid.uuid4().hex
        create(folder, _SCHEMA)
        self._alive = self._lock_of(self._program)

    def add(self, run: WatchedRun) -> None:
        """Record a run that begins."""
        if not self._alive.is_locked:
            self._alive.acquire()
        with writing(self.folder) as base:
            base.execute("INSERT OR REPLACE INTO watches VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                         (run.prompt_id, run.node_id, run.to.url, run.to.profile, run.to.signed,
                          json.dumps(run.request), run.began, self._program))

    def find(self, prompt_id: str, node_id: str) -> WatchedRun | None:
        """Return the run, until it has ended."""
        with opened(self.folder) as base:
            row = base.execute(f"SELECT {_COLUMNS} FROM watches WHERE prompt_id = ? AND node_id = ?",
                               (prompt_id, node_id)).fetchone()
        return None if row is None else _watched_run(row)

    def orphans(self) -> list[WatchedRun]:
        """Return the unreported runs of processes that have ended, and forget their reported ones."""
        with opened(self.folder) as base:
            programs = [row[0] for row in base.execute("SELECT DISTINCT program FROM watches WHERE program != ?",
                                                       (self._program,))]
        found: list[WatchedRun] = []
        for program in programs:
            lock = self._lock_of(program)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
            with writing(self.folder) as base:
                base.execute("DELETE FROM watches WHERE program = ? AND told = 1", (program,))
                rows = base.execute(f"SELECT {_COLUMNS} FROM watches WHERE program = ?", (program,))
                found += map(_watched_run, rows)
        return found

    def _lock_of(self, program: str) -> FileLock:
        (self.folder / "locks").mkdir(exist_ok=True)
        return FileLock(self.folder / "locks" / f"program-{program}.lock", thread_local=False)


def _watched_run(row: tuple[Any, ...]) -> WatchedRun:
    return WatchedRun(row[0], row[1], Recipient(row[2], row[3], bool(row[4])), json.loads(row[5]), row[6])


def mark_reported(base: sqlite3.Connection, prompt_id: str, node_id: str) -> None:
    """Record, in the caller's transaction, that a run's result was reported."""
    base.execute("UPDATE watches SET told = 1 WHERE prompt_id = ? AND node_id = ?", (prompt_id, node_id))


def remove(base: sqlite3.Connection, run: WatchedRun) -> bool:
    """Forget, in the caller's transaction, a run that has ended; return whether its result is still unreported."""
    row = base.execute("DELETE FROM watches WHERE prompt_id = ? AND node_id = ? RETURNING told",
                       (run.prompt_id, run.node_id)).fetchone()
    return row is not None and not row[0]
