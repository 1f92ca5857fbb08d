"""The table of predictions: what was ordered, by which key, and what became of it. It outlives ComfyUI's own queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..remote.database import create, opened, writing
from .order import Order
from .status import CANCELLED, OPEN, QUEUED, RUNNING

_SCHEMA = """
CREATE TABLE IF NOT EXISTS api_predictions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, status TEXT NOT NULL,
    created REAL NOT NULL, started REAL, ended REAL, "order" TEXT NOT NULL, base TEXT NOT NULL, warnings TEXT NOT NULL,
    idempotency TEXT, digest TEXT NOT NULL, cancelling INTEGER NOT NULL, file TEXT NOT NULL, fault TEXT NOT NULL,
    error TEXT NOT NULL, UNIQUE (key, idempotency)
);
CREATE INDEX IF NOT EXISTS api_predictions_by_status ON api_predictions (status, number);
CREATE TABLE IF NOT EXISTS api_starts (id TEXT PRIMARY KEY, starts INTEGER NOT NULL);
"""
_COLUMNS = ('number, id, key, status, created, started, ended, "order", base, warnings, idempotency, digest, '
            "cancelling, file, fault, error")


@dataclass(frozen=True)
class StoredPrediction:
    """One row. Times are seconds since 1970."""

    id: str
    """Of the prediction, and of its run in ComfyUI's queue."""
    key: str
    """Name of the key that ordered it."""
    order: Order
    base: str
    """Scheme and host by which links lead to this server."""
    created: float
    status: str = QUEUED
    started: float | None = None
    ended: float | None = None
    warnings: str = ""
    """Sentences, one a line."""
    idempotency: str | None = None
    """What the client sent as Idempotency-Key."""
    digest: str = ""
    """Of the request, to know a repeated one by."""
    cancelling: bool = False
    """The client has cancelled it, and it has not ended yet."""
    file: str = ""
    """The clip, below ComfyUI's output folder; "" while there is none."""
    fault: str = ""
    """One of FAULTS; "" for none."""
    error: str = ""
    number: int = 0
    """Place in the order of requests; given by the table."""


class Predictions:
    """The table; safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def add(self, new: StoredPrediction) -> None:
        """Add a prediction."""
        with writing(self.folder) as base:
            base.execute(
                f"INSERT INTO api_predictions VALUES ({', '.join('?' * 16)})",
                (None, new.id, new.key, new.status, new.created, new.started, new.ended, new.order.to_json(), new.base,
                 new.warnings, new.idempotency, new.digest, new.cancelling, new.file, new.fault, new.error))

    def get(self, prediction_id: str, key: str | None = None) -> StoredPrediction | None:
        """Return a prediction, of a key when one is given; None when there is none."""
        return self._one("id = ? AND key = COALESCE(?, key)", prediction_id, key)

    def repeated(self, key: str, idempotency: str) -> StoredPrediction | None:
        """Return what a key ordered with this Idempotency-Key before; None when it has not."""
        return self._one("key = ? AND idempotency = ?", key, idempotency)

    def page(self, key: str, most: int, before: str | None, status: str | None) -> list[StoredPrediction]:
        """Return a key's newest predictions, those older than another one, of a status; None is no condition."""
        return self._all("key = ? AND status = COALESCE(?, status) AND number < COALESCE((SELECT number FROM "
                         "api_predictions WHERE id = ? AND key = ?), ?) ORDER BY number DESC LIMIT ?",
                         key, status, before, key, 0 if before else 2**62, most)

    def open(self) -> list[StoredPrediction]:
        """Return all that wait or run, in the order of their requests."""
        return self._all("status IN (?, ?) ORDER BY number", *OPEN)

    def count_open(self, key: str) -> int:
        """Return how many of a key's wait or run."""
        with opened(self.folder) as base:
            return base.execute("SELECT COUNT(*) FROM api_predictions WHERE key = ? AND status IN (?, ?)",
                                (key, *OPEN)).fetchone()[0]

    def ended_before(self, time: float) -> list[StoredPrediction]:
        """Return all that ended before a time."""
        return self._all("ended < ?", time)

    def begin(self, prediction_id: str, now: float) -> None:
        """Record that a prediction runs."""
        with writing(self.folder) as base:
            changed = base.execute("UPDATE api_predictions SET status = ?, started = ? WHERE id = ? AND status = ?",
                                   (RUNNING, now, prediction_id, QUEUED))
            if changed.rowcount == 1:
                base.execute("INSERT INTO api_starts VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET starts = starts + 1",
                             (prediction_id,))

    def starts(self, prediction_id: str) -> int:
        """Return how often a prediction began to run."""
        with opened(self.folder) as base:
            row = base.execute("SELECT starts FROM api_starts WHERE id = ?", (prediction_id,)).fetchone()
        return row[0] if row else 0

    def start_over(self, prediction_id: str) -> None:
        """Record that a prediction waits again, because the ComfyUI that ran it is gone."""
        with writing(self.folder) as base:
            base.execute("UPDATE api_predictions SET status = ?, started = NULL WHERE id = ? AND status = ?",
                         (QUEUED, prediction_id, RUNNING))

    def set_cancelling(self, prediction_id: str) -> None:
        """Record that the client has cancelled a prediction."""
        with writing(self.folder) as base:
            base.execute("UPDATE api_predictions SET cancelling = 1 WHERE id = ?", (prediction_id,))

    def end(self, ended: StoredPrediction, also: Callable[[sqlite3.Connection], None]) -> bool:
        """Record the end of a prediction, once; return False when it had ended before.

        also: called in the same transaction, for what must happen exactly when this does.
        """
        with writing(self.folder) as base:
            changed = base.execute(
                "UPDATE api_predictions SET status = ?, started = ?, ended = ?, file = ?, fault = ?, error = ? "
                "WHERE id = ? AND status IN (?, ?)",
                (ended.status, ended.started, ended.ended, ended.file, ended.fault, ended.error, ended.id, *OPEN))
            if changed.rowcount == 1:
                base.execute("DELETE FROM api_starts WHERE id = ?", (ended.id,))
                also(base)
            return changed.rowcount == 1

    def delete(self, prediction_id: str) -> None:
        """Delete the row of a prediction."""
        with writing(self.folder) as base:
            base.execute("DELETE FROM api_predictions WHERE id = ?", (prediction_id,))

    def _one(self, condition: str, *values: object) -> StoredPrediction | None:
        found = self._all(condition, *values)
        return found[0] if found else None

    def _all(self, condition: str, *values: object) -> list[StoredPrediction]:
        with opened(self.folder) as base:
            return list(map(_read, base.execute(f"SELECT {_COLUMNS} FROM api_predictions WHERE {condition}", values)))


def ended(one: StoredPrediction, status: str, now: float, file: str = "", fault: str = "", error: str = "",
          ) -> StoredPrediction:
    """Return a prediction as it is after its end; one that was cancelled by its client has no fault."""
    is_cancelled = status == CANCELLED and one.cancelling
    return replace(one, status=status, ended=now, file=file, fault="" if is_cancelled else fault,
                   error="" if is_cancelled else error)


def _read(row: Sequence[object]) -> StoredPrediction:
    (number, name, key, status, created, started, ended, order, base, warnings, idempotency, digest, cancelling, file,
     fault, error) = row
    return StoredPrediction(name, key, Order.from_json(order), base, created, status, started, ended, warnings,
                            idempotency, digest, bool(cancelling), file, fault, error, number)
