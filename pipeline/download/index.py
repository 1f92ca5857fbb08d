"""What the cache knows of links and files: SQLite, which many processes may use at once and any may be killed in.

Links are kept as hashes, for their queries may be secret. Should the machine itself fail, the index may be lost; the
files are not, since a file that is not in the index is hashed once more before it is used.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import DownloadError

_TABLES = """
CREATE TABLE IF NOT EXISTS sources
    (link TEXT PRIMARY KEY, shown TEXT, etag TEXT, last_modified TEXT, sha256 TEXT, name TEXT);
CREATE TABLE IF NOT EXISTS files (sha256 TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, used REAL);
"""
BUSY = 30.0
"""Seconds to wait for another process's turn, which takes milliseconds."""


@dataclass(frozen=True)
class Entry:
    """What a link gave last time."""

    sha256: str
    etag: str | None
    last_modified: str | None
    name: str
    """See file_name.full_name."""


@dataclass(frozen=True)
class File:
    """A file of the cache as it was when it came in."""

    sha256: str
    size: int
    mtime_ns: int
    used: float
    """When it was last used, in seconds since 1970."""


def link_name(link: str) -> str:
    """A name for a link that does not tell it."""
    return hashlib.sha256(link.encode()).hexdigest()


class Index:
    """The index of a cache folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            try:
                connection = self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._path.unlink(missing_ok=True)  # damaged; the files are hashed again when they are asked for
                connection = self._connect()
            with closing(connection), connection:
                yield connection
        except sqlite3.Error as error:
            raise DownloadError(f"The cache's index {self._path} cannot be used: {error}. Delete that file alone (the "
                                "cache makes a new one), or make room on its disk, and run again.") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY)
        try:
            connection.execute("PRAGMA synchronous = OFF")  # survives a kill; a power cut may cost the index
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection

    def entry(self, link: str) -> Entry | None:
        """What a link gave last time."""
        with self._open() as db:
            row = db.execute("SELECT sha256, etag, last_modified, name FROM sources WHERE link = ?",
                             (link_name(link),)).fetchone()
        return Entry(*row) if row else None

    def file(self, sha256: str) -> File | None:
        with self._open() as db:
            row = db.execute("SELECT sha256, size, mtime_ns, used FROM files WHERE sha256 = ?", (sha256,)).fetchone()
        return File(*row) if row else None

    def put_entry(self, link: str, shown: str, entry: Entry) -> None:
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)",
                       (link_name(link), shown, entry.etag, entry.last_modified, entry.sha256, entry.name))

    def name(self, link: str, sha256: str) -> str | None:
        """What a file was called when it came from a link, or from any other; None when it is not known."""
        with self._open() as db:
            row = db.execute("SELECT name FROM sources WHERE sha256 = ? ORDER BY link = ? DESC",
                             (sha256, link_name(link))).fetchone()
        return row[0] if row else None

    def put_file(self, file: File) -> None:
        with self._open() as db:
            db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                       (file.sha256, file.size, file.mtime_ns, file.used))

    def touch(self, sha256: str, now: float) -> None:
        """Note that a file is used."""
        with self._open() as db:
            db.execute("UPDATE files SET used = ? WHERE sha256 = ?", (now, sha256))

    def drop_file(self, sha256: str) -> None:
        with self._open() as db:
            db.execute("DELETE FROM files WHERE sha256 = ?", (sha256,))

    def by_last_use(self) -> list[File]:
        """All files, the longest unused first."""
        with self._open() as db:
            return [File(*row) for row in db.execute("SELECT sha256, size, mtime_ns, used FROM files ORDER BY used")]
