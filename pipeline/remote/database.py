"""Open the pack's SQLite file: the ledger's jobs and the tables beside them.

Write-ahead log with synchronous=FULL: a commit that returned survives a crash of the machine (sqlite.org/wal.html).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .errors import ErrorKind, RemoteError

FILE = "jobs.sqlite"
BUSY_SECONDS = 30.0
"""Longest wait for another connection's transaction."""


def create(folder: Path, schema: str) -> None:
    """Create the folder and the tables of a schema, where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with opened(folder) as base:
        base.executescript(schema)


@contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection in autocommit mode. Raises RemoteError (REFUSED_HERE) when the file cannot be used."""
    try:
        with closing(sqlite3.connect(folder / FILE, timeout=BUSY_SECONDS, isolation_level=None)) as base:
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = FULL")
            base.execute("PRAGMA fullfsync = ON")  # on macOS fsync alone leaves data in the drive's own cache
            yield base
    except sqlite3.Error as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"The pack's database in {folder} cannot be used: {error}. Free "
                          "space there, or check its permissions. Nothing is bought without it.") from None


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection in one exclusive write transaction, rolled back by any exception."""
    with opened(folder) as base:
        base.execute("BEGIN IMMEDIATE")
        try:
            yield base
        except BaseException:
            base.execute("ROLLBACK")
            raise
        base.execute("COMMIT")
