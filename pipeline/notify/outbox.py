"""The outbox: callbacks on disk before the first try, so that neither a restart nor a dead receiver loses one.

Each is delivered at least once: when a receiver's reply is lost, it gets the message again under the same id.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..http.errors import redact
from ..remote.database import create, opened, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, url TEXT NOT NULL, profile TEXT NOT NULL, signed INTEGER NOT NULL, body BLOB NOT NULL,
    created REAL NOT NULL, due REAL NOT NULL, tried INTEGER NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_by_due ON outbox (state, due);
CREATE TABLE IF NOT EXISTS outbox_turns (profile TEXT PRIMARY KEY, turn INTEGER NOT NULL);
"""
WAITING, SENT, GIVEN_UP = "waiting", "sent", "given up"
LEASE = 120.0
"""Seconds after which a claimed message is free again; longer than any try."""
KEPT = 30 * 24 * 3600.0
"""Seconds for which the outcome of a message is kept."""


@dataclass(frozen=True)
class Recipient:
    """The receiver of a callback, and the profile whose secret signs it."""

    url: str
    profile: str
    signed: bool


@dataclass(frozen=True)
class Message:
    """One callback."""

    id: str
    to: Recipient
    body: bytes
    tried: int = 0
    """Tries that failed."""


def add(base: sqlite3.Connection, message: Message, now: float) -> None:
    """Add a message to the outbox, in the caller's transaction; delete outcomes that are too old."""
    base.execute("DELETE FROM outbox WHERE state != ? AND created < ?", (WAITING, now - KEPT))
    base.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, '')",
                 (message.id, message.to.url, message.to.profile, message.to.signed, message.body, now, now, WAITING))


class Outbox:
    """The table; safe for several threads and processes."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970."""
        self.folder, self.clock = folder, clock
        create(folder, _SCHEMA)

    def claim(self) -> Message | None:
        """Return a message that is due, reserved for LEASE seconds; None when none is due.

        Profiles take turns, so that one whose receivers are dead does not hold up the others; of a profile's messages
        the one with the fewest tries comes first.
        """
        now = self.clock()
        with writing(self.folder) as base:
            row = base.execute("SELECT id, url, outbox.profile, signed, body, tried FROM outbox LEFT JOIN outbox_turns "
                               "AS last ON last.profile = outbox.profile WHERE state = ? AND due <= ? "
                               "ORDER BY COALESCE(last.turn, 0), tried, due LIMIT 1", (WAITING, now)).fetchone()
            if row is None:
                return None
            base.execute("UPDATE outbox SET due = ? WHERE id = ?", (now + LEASE, row[0]))
            base.execute("REPLACE INTO outbox_turns SELECT ?, COALESCE(MAX(turn), 0) + 1 FROM outbox_turns", (row[2],))
        return Message(row[0], Recipient(row[1], row[2], bool(row[3])), row[4], row[5])

    def seconds_to_next(self) -> float | None:
        """Return the seconds until a message is due; None when none is waiting."""
        with opened(self.folder) as base:
            due = base.execute("SELECT MIN(due) FROM outbox WHERE state = ?", (WAITING,)).fetchone()[0]
        return None if due is None else max(0.0, due - self.clock())

    def put_off(self, message: Message, why: str, seconds: float) -> None:
        """Record a failed try, and that the next one is in so many seconds."""
        with writing(self.folder) as base:
            base.execute("UPDATE outbox SET due = ?, tried = tried + 1, error = ? WHERE id = ?",
                         (self.clock() + seconds, why, message.id))

    def end(self, message: Message, state: str, why: str = "") -> None:
        """Record that a message is SENT or GIVEN_UP; its text is deleted, and its link's query, which may be secret."""
        with writing(self.folder) as base:
            base.execute("UPDATE outbox SET state = ?, tried = tried + 1, error = ?, url = ?, body = '' WHERE id = ?",
                         (state, why, redact(message.to.url), message.id))
