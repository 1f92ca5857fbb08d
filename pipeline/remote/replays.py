"""Callbacks that were taken already, so that each has its effect once."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from .database import create, writing

_SCHEMA = """
CREATE TABLE IF NOT EXISTS callbacks (id TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS callbacks_by_at ON callbacks (at);
"""
KEPT = 24 * 3600.0
"""Seconds. Longer than the window of a signature, since providers repeat a callback, signed anew, for hours."""


class Replays:
    """The table; for several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create(folder, _SCHEMA)

    def is_new(self, provider: str, event: str) -> bool:
        """Whether this is the first time that the event is told; notes it."""
        name = hashlib.sha256(f"{provider}\n{event}".encode(errors="surrogatepass")).hexdigest()
        with writing(self.folder) as base:
            base.execute("DELETE FROM callbacks WHERE at < ?", (time.time() - KEPT,))
            return base.execute("INSERT OR IGNORE INTO callbacks VALUES (?, ?)", (name, time.time())).rowcount == 1
