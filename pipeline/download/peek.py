"""Look at the beginning of a file that a link names, without fetching the rest of it."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from ..http.address import parse_url
from ..http.errors import DownloadError, redact
from ..http.policy import OFFLINE_VARIABLE, Policy
from ..http.secrets import Tokens
from ..http.session import Session
from ..http.threads import never, stoppable
from .cache import Cache, Entry
from .fetch import Read, file_link
from .response import NotChanged, open_file
from .source import Remote, full_name, parse_source

T = TypeVar("T")
Look = Callable[[Read, "int | None", str], T]
"""(read, size in bytes or None, name with folders) -> what was found; see fetch.Inspect."""
SECONDS = 20.0
"""That a server may take for it all."""
FRESH = 60.0
"""Seconds for which a server is not asked whether the file is still the same."""
REMEMBERED = 32
"""Files at most."""


class NotAskedError(Exception):
    """Only the file's server could tell, and it was not to be asked. `host` is its name."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.host = host


@dataclass(frozen=True)
class _Seen(Generic[T]):
    found: T
    asked: float
    """When, by the monotonic clock."""
    etag: str | None
    last_modified: str | None

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.asked < FRESH


class Peeks(Generic[T]):
    """Findings at the beginning of files, kept for as long as the program runs. For any number of threads."""

    def __init__(self, look: Look[T], small: Callable[[T], bool]) -> None:
        """small: True for findings that may be kept in memory."""
        self._look, self._small = look, small
        self._seen: OrderedDict[str, _Seen[T]] = OrderedDict()
        self._turns: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def peek(self, source: str, *, folder: Path, policy: Policy, tokens: Tokens, sha256: str | None = None,
             ask: bool) -> T:
        """Return what `look` finds in the file: in the cache's own, else as remembered, else at the server.

        folder: of the cache. ask: False forbids every connection. Raises NotAskedError, DownloadError, what look
        raises.
        """
        remote = parse_source(source)
        if folder.is_dir() and (there := _cached(Cache(folder), remote.link, sha256)) is not None:
            path, name = there
            with path.open("rb") as file:
                return self._look(lambda offset, length: (file.seek(offset), file.read(length))[1],
                                  path.stat().st_size, name)
        seen = self._remembered(remote.link)
        if seen is not None and (not ask or seen.fresh):
            return seen.found
        if policy.offline:
            raise DownloadError(f"{redact(remote.link)} was not fetched yet, and {OFFLINE_VARIABLE} is set.")
        if not ask:
            raise NotAskedError(parse_url(remote.link).host)
        with self._lock:
            turn = self._turns.setdefault(remote.link, threading.Lock())
        with turn:  # whoever waited finds what the one before was told
            seen = self._remembered(remote.link)
            if seen is None or not seen.fresh:
                session = Session(policy, tokens)
                try:
                    seen = stoppable(functools.partial(self._asked, session, remote, seen), never, SECONDS,
                                     session.abort)
                finally:
                    session.close()
                self._remember(remote.link, seen)
        return seen.found

    def _remembered(self, link: str) -> _Seen[T] | None:
        with self._lock:
            return self._seen.get(link)

    def _remember(self, link: str, seen: _Seen[T]) -> None:
        with self._lock:
            self._seen.pop(link, None)
            if self._small(seen.found):
                self._seen[link] = seen
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)

    def _asked(self, session: Session, remote: Remote, seen: _Seen[T] | None) -> _Seen[T]:
        link = file_link(session, remote)
        try:
            first = open_file(session, link, Entry("", seen.etag, seen.last_modified, "") if seen else None)
        except NotChanged:
            return _Seen(seen.found, time.monotonic(), seen.etag, seen.last_modified)
        try:
            found = self._look(first.read, first.size, full_name(link, first.said_name))
            return _Seen(found, time.monotonic(), first.etag, first.last_modified)
        finally:
            first.close()


def _cached(cache: Cache, link: str, sha256: str | None) -> tuple[Path, str] | None:
    """Return the cache's file and its name, as it would be used without asking anybody."""
    if sha256 is not None:
        path = cache.find(sha256.lower(), never)
        return None if path is None else (path, cache.name(link, path))
    known = cache.known(link, never)
    return None if known is None else (known[1], known[0].name)
