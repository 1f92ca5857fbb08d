"""Keep fetched files under their content: <root>/sha256/ab/abcdef... The same bytes are kept once for all links.

A file comes in by a rename once it is whole, hashed and on the disk, so that a file in the cache is never half-written.
What is known of links and files is in an SQLite index, which many processes may use at once and any may be killed in.
Links are kept there as hashes, for their queries may be secret. Should the machine itself fail, the index may be lost;
the files are not, since a file that is not in the index is hashed once more before it is used.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.atomic import WAITS, retry_while_held
from ..files.names import read_sha256
from ..http.errors import DownloadError
from ..http.threads import Stop, pause
from .partial import Partial, hash_file
from .source import full_name

if TYPE_CHECKING:
    from filelock import BaseFileLock

DAY = 86400.0
KEPT_FOR = DAY
"""Seconds after its last use that a file is safe from cleaning: a run of this process or another may rely on it. For
so long a download that ended early comes after the files: it may go on any moment."""
PARTIAL_KEPT_FOR = 7 * DAY
MOVE_WAITS = (*WAITS, 3.0, 6.0, 12.0, 24.0)
"""Seconds between the tries to bring a file in: a virus scanner takes its time over some GB."""
_TABLES = """
CREATE TABLE IF NOT EXISTS sources
    (link TEXT PRIMARY KEY, shown TEXT, etag TEXT, last_modified TEXT, sha256 TEXT, name TEXT);
CREATE TABLE IF NOT EXISTS files (sha256 TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, used REAL);
"""
BUSY = 30.0
"""Seconds to wait for another process's turn, which takes milliseconds."""


@dataclass(frozen=True)
class Entry:
    """The file that a link gave last time."""

    sha256: str
    etag: str | None
    last_modified: str | None
    name: str
    """See source.full_name."""


@dataclass(frozen=True)
class File:
    """A file of the cache as it was when it came in."""

    sha256: str
    size: int
    mtime_ns: int
    used: float
    """When it was last used, in seconds since 1970."""


@dataclass(frozen=True)
class EndedEarly:
    """A download that is not whole, and that nobody is at."""

    path: Path
    size: int
    """Bytes that it takes on the disk."""
    changed: float
    """When it last got any, in seconds since 1970."""


def link_name(link: str) -> str:
    """Return a name for a link that does not tell it."""
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
        """Return what a link gave last time."""
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
        """Return what a file was called when it came from a link, or from any other; None when it is not known."""
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
        """Return all files, the longest unused first."""
        with self._open() as db:
            return [File(*row) for row in db.execute("SELECT sha256, size, mtime_ns, used FROM files ORDER BY used")]


@dataclass(frozen=True)
class Usage:
    """Room that a cache takes on the disk, in bytes."""

    files: int
    """Number of files."""
    whole: int
    partial: int
    """Downloads that are not whole yet."""
    idle: int
    """Of all that, files that were not used for a day and downloads that nobody is at."""


class Cache:
    """The cache in a folder. Any number of threads and processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._index = Index(root / "index.sqlite3")

    def path(self, sha256: str) -> Path:
        """Return where the file of that content is, or would be."""
        return self.root / "sha256" / sha256[:2] / sha256

    def find(self, sha256: str, stop: Stop) -> Path | None:
        """Return the file of that content, None when it is not there.

        Size and time of change tell that it is as it came in; hashed again only when they differ.
        """
        path = self.path(sha256)
        try:
            status = path.stat()
        except OSError:
            return None
        known = self._index.file(sha256)
        if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            self._index.touch(sha256, time.time())
            return path
        if hash_file(path, stop) != sha256:
            retry_while_held(lambda: path.unlink(missing_ok=True))
            self._index.drop_file(sha256)
            return None
        self._index.put_file(File(sha256, status.st_size, status.st_mtime_ns, time.time()))
        return path

    def known(self, link: str, stop: Stop) -> tuple[Entry, Path] | None:
        """Return what a link gave last time, if the file is still there."""
        entry = self._index.entry(link)
        path = self.find(entry.sha256, stop) if entry is not None else None
        return (entry, path) if path is not None else None

    def note(self, link: str, shown: str, entry: Entry) -> None:
        """Remember what a link gave."""
        self._index.put_entry(link, shown, entry)

    def name(self, link: str, path: Path) -> str:
        """Return what a file of the cache is called, by the server that it came from or else by the link alone."""
        return self._index.name(link, path.name) or full_name(link, None)

    def partial(self, link: str) -> Partial:
        """Return the download of a link as far as it got. To be used under `lock`."""
        return Partial(self.root / "partial", link_name(link))

    def take(self, partial: Partial, sha256: str, stop: Stop) -> Path:
        """Bring a whole file in that is on the disk and has been hashed."""
        if (there := self.find(sha256, stop)) is not None:
            partial.discard()
            return there
        path = self.path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        retry_while_held(lambda: os.replace(partial.path, path), MOVE_WAITS, lambda seconds: pause(seconds, stop))
        if os.name == "posix":  # the rename itself must outlive a power cut
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        partial.taken()
        status = path.stat()
        self._index.put_file(File(sha256, status.st_size, status.st_mtime_ns, time.time()))
        return path

    @contextmanager
    def lock(self, link: str, stop: Stop) -> Iterator[None]:
        """Be the only thread of the only process that fetches a link; wait for another, unless stop raises."""
        from filelock import Timeout

        folder = self.root / "partial"
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock_of(folder / link_name(link))
        while True:
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:
                pause(0.1, stop)
        try:
            yield
        finally:
            lock.release()

    def clean(self, max_bytes: int, now: float | None = None) -> None:
        """Remove what is of least use until at most `max_bytes` remain, and downloads that ended a week ago.

        First go downloads that ended early a day ago or more, then the files unused for longest, then the other
        downloads that ended early. A file used within the last day stays, even beyond the limit, and so does a download
        that somebody is at.
        """
        now = time.time() if now is None else now
        files, ended = self.files(), self._ended_early()
        total = sum(file.size for file in files) + self._partial_bytes()
        idle = [one for one in ended if one.changed <= now - KEPT_FOR]
        for one in idle:
            if total > max_bytes or one.changed < now - PARTIAL_KEPT_FOR:
                total -= self._drop_ended(one)
        for file in files:
            if total <= max_bytes or not _may_go(file, now):
                break
            try:
                self.path(file.sha256).unlink(missing_ok=True)
            except OSError:
                continue  # open in another program (Windows)
            self._index.drop_file(file.sha256)
            total -= file.size
        for one in ended[len(idle):]:
            if total > max_bytes:
                total -= self._drop_ended(one)

    def files(self) -> list[File]:
        """Return what is there, the longest unused first. A file that the index lost was used when it came in."""
        paths = [path for path in self.root.glob("sha256/??/*") if read_sha256(path.name) == path.name]
        used = {file.sha256: file.used for file in self._index.by_last_use()} if paths else {}
        found = []
        for path in paths:
            with suppress(OSError):
                status = path.stat()
                found.append(File(path.name, status.st_size, status.st_mtime_ns, used.get(path.name, status.st_mtime)))
        return sorted(found, key=lambda file: file.used)

    def usage(self, now: float | None = None) -> Usage:
        """Return what is there, and what of it `clean(0)` would remove."""
        now = time.time() if now is None else now
        files = self.files()
        idle = [file.size for file in files if _may_go(file, now)] + [one.size for one in self._ended_early()]
        return Usage(len(files), sum(file.size for file in files), self._partial_bytes(), sum(idle))

    def _partial_bytes(self) -> int:
        return sum(map(_on_disk, self.root.glob("partial/*.part")))

    def _ended_early(self) -> list[EndedEarly]:
        """Return the downloads that nobody is at, those first that got their last byte longest ago."""
        found = []
        for path in self.root.glob("partial/*.part"):
            with suppress(OSError), _lock_of(path).acquire(blocking=False):
                found.append(EndedEarly(path, _on_disk(path), path.stat().st_mtime))
        return sorted(found, key=lambda one: one.changed)

    def _drop_ended(self, one: EndedEarly) -> int:
        """Remove a download unless somebody has begun to go on with it; return the bytes that this frees."""
        with suppress(OSError), _lock_of(one.path).acquire(blocking=False):  # or it is still held (Windows)
            one.path.with_suffix(".json").unlink(missing_ok=True)
            one.path.unlink()
            return one.size
        return 0


def _lock_of(partial: Path) -> BaseFileLock:
    """Return the lock of the download at this path, whatever its suffix. Whoever has it alone changes the download."""
    from filelock import FileLock

    return FileLock(partial.with_suffix(".lock"), thread_local=False)


def _may_go(file: File, now: float) -> bool:
    return file.used <= now - KEPT_FOR


def _on_disk(path: Path) -> int:
    """Return the bytes that a file takes, which may have holes; 0 when it has gone."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def check_sha256(text: str) -> str:
    """Return a hash as typed in 64 hex digits, lower case. Raises ValueError for anything else."""
    found = read_sha256(text.strip().lower().removeprefix("sha256:"))
    if found is None:
        raise ValueError(f"{text[:80]!r} is no SHA-256, which is 64 digits of 0-9 and a-f.")
    return found
