"""Runs of a graph whose end somebody wants to be told of, whatever the end is; noted on disk as they begin.

ComfyUI ends a graph at the first node that fails, so that a node which tells of failures never gets its turn then. But
it asks every node for its fingerprint before it runs any, and that is where a run comes to be noted here. The note is
crossed out by the node itself when its turn comes; one that is still there when the run has left the queue, or when the
ComfyUI that made it is gone, is a failure. No event of the server tells this as well: execution_error is sent to the
canvas that queued the run, and to nobody when none did.
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
from .outbox import Addressee

_SCHEMA = """
CREATE TABLE IF NOT EXISTS watches (
    prompt_id TEXT NOT NULL, node_id TEXT NOT NULL, url TEXT NOT NULL, profile TEXT NOT NULL, signed INTEGER NOT NULL,
    request TEXT NOT NULL, began REAL NOT NULL, program TEXT NOT NULL, told INTEGER NOT NULL,
    PRIMARY KEY (prompt_id, node_id)
);
"""
_COLUMNS = "prompt_id, node_id, url, profile, signed, request, began"


@dataclass(frozen=True)
class Watch:
    """A run of a graph, and the node in it that is to tell of it."""

    prompt_id: str
    node_id: str
    to: Addressee
    request: list[dict[str, Any]]
    """As event.request_of gives it."""
    began: float
    """Seconds since 1970."""


def _watch(row: tuple[Any, ...]) -> Watch:
    return Watch(row[0], row[1], Addressee(row[2], row[3], bool(row[4])), json.loads(row[5]), row[6])


class Watches:
    """The table. A lock file, held for the life of this program, tells others that its runs are alive."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._program = folder, uuid.uuid4().hex
        create(folder, _SCHEMA)
        self._alive = self._lock_of(self._program)

    def begin(self, watch: Watch) -> None:
        """Note a run that begins."""
        if not self._alive.is_locked:
            self._alive.acquire()
        with writing(self.folder) as base:
            base.execute("INSERT OR REPLACE INTO watches VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
                         (watch.prompt_id, watch.node_id, watch.to.url, watch.to.profile, watch.to.signed,
                          json.dumps(watch.request), watch.began, self._program))

    def find(self, prompt_id: str, node_id: str) -> Watch | None:
        """The run, until it has ended."""
        with opened(self.folder) as base:
            row = base.execute(f"SELECT {_COLUMNS} FROM watches WHERE prompt_id = ? AND node_id = ?",
                               (prompt_id, node_id)).fetchone()
        return None if row is None else _watch(row)

    def orphans(self) -> list[Watch]:
        """Untold runs of programs that have ended, which nobody finishes any more; forgets those that were told."""
        with opened(self.folder) as base:
            programs = [row[0] for row in base.execute("SELECT DISTINCT program FROM watches WHERE program != ?",
                                                       (self._program,))]
        found: list[Watch] = []
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
                found += map(_watch, base.execute(f"SELECT {_COLUMNS} FROM watches WHERE program = ?", (program,)))
        return found

    def _lock_of(self, program: str) -> FileLock:
        (self.folder / "locks").mkdir(exist_ok=True)
        return FileLock(self.folder / "locks" / f"program-{program}.lock", thread_local=False)


def mark_told(base: sqlite3.Connection, prompt_id: str, node_id: str) -> None:
    """Note, in the caller's transaction, that a run's result was told."""
    base.execute("UPDATE watches SET told = 1 WHERE prompt_id = ? AND node_id = ?", (prompt_id, node_id))


def end(base: sqlite3.Connection, watch: Watch) -> bool:
    """Forget, in the caller's transaction, a run that has ended; returns whether nobody was told of it."""
    row = base.execute("DELETE FROM watches WHERE prompt_id = ? AND node_id = ? RETURNING told",
                       (watch.prompt_id, watch.node_id)).fetchone()
    return row is not None and not row[0]
