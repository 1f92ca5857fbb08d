"""Asking for a file, with patience: is it the one in the cache, and if not, bring it there."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..size_text import size_text
from .body import Progress, fetch_body
from .cache import Cache
from .errors import DownloadError, TransientError, UnknownHostError, redact
from .file_name import full_name
from .hashing import PrefixHash
from .index import Entry
from .lookup import file_link
from .opening import OPENING, NotChanged, Opening, open_file
from .partial import Partial, disk_error, sync
from .source import Remote
from .transport import Client
from .waiting import Stop, pause, stoppable

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer at the end of the file."""
Inspect = Callable[[Read, "int | None", str], None]
"""(read, size in bytes or None, name with folders) -> raises ValueError when the file is not wanted.

The name is for show and for hints: the path in the link, and behind it what the server calls the file.
"""


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    remote: Remote
    cache: Cache
    client: Client
    sha256: str | None
    max_bytes: int
    cache_bytes: int
    inspect: Inspect | None
    on_progress: Progress
    stop: Stop


def as_pinned(wish: Wish, entry: Entry, path: Path) -> Path:
    """The file that is known of a link, unless another was asked for."""
    if wish.sha256 not in (None, entry.sha256):
        raise DownloadError(f"{redact(wish.remote.link)} has the SHA-256 {entry.sha256}, not {wish.sha256} as asked. "
                            "Check both.")
    return path


def online(wish: Wish) -> Path:
    """Fetch the file, or find that it is still the one in the cache; with patience for a server in trouble."""
    pace = wish.client.policy.pace
    with wish.cache.lock(wish.remote.link, wish.stop):
        partial = wish.cache.partial(wish.remote.link)
        vain = 0
        while True:
            before = partial.done
            try:
                return _attempt(wish, partial)
            except TransientError as error:
                if isinstance(error, UnknownHostError):
                    raise
                vain = vain + 1 if partial.done - before < pace.step else 0
                if vain >= pace.attempts:
                    raise DownloadError(f"{error} {_kept(partial)}") from None
                wait = random.uniform(0, pace.first_wait * 2**vain) if error.wait is None else error.wait
                pause(min(wait, pace.longest_wait), wish.stop)


def _kept(partial: Partial) -> str:
    if partial.noted and partial.validator:
        of = f" of {size_text(partial.size)}" if partial.size else ""
        return f"{size_text(partial.noted)}{of} are kept: run again to go on from there."
    return "Nothing was kept; run again to start anew."


def _attempt(wish: Wish, partial: Partial) -> Path:
    stop, cache, patience = wish.stop, wish.cache, wish.client.policy.pace.patience(OPENING)
    known = cache.known(wish.remote.link, stop)

    def ask() -> tuple[str, Opening]:
        link = file_link(wish.client, wish.remote)
        return link, open_file(wish.client, link, known[0] if known else None)

    try:
        file, opening = stoppable(ask, stop, patience)
    except NotChanged:
        return as_pinned(wish, *known)
    except TransientError:
        if known is None:
            raise
        return as_pinned(wish, *known)  # nobody to ask whether it changed: better than nothing
    name = full_name(file, opening.said_name)
    try:
        expected = wish.sha256 or opening.announced_sha256
        if wish.sha256 not in (None, opening.announced_sha256) and opening.announced_sha256 is not None:
            raise DownloadError(f"{opening.url} has the SHA-256 {opening.announced_sha256}, not {wish.sha256} as "
                                "asked. Nothing was fetched. Check both.")
        there = cache.find(expected, stop) if expected else None  # the same file under another link
        if there is None:
            there, expected = _download(wish, opening, name, partial, expected)
        link = wish.remote.link
        cache.note(link, redact(link), Entry(expected, opening.etag, opening.last_modified, name))
        return there
    finally:
        opening.close()


def _download(wish: Wish, opening: Opening, name: str, partial: Partial, expected: str | None) -> tuple[Path, str]:
    """Look at the beginning, then fetch the rest; returns the file in the cache and its hash."""
    size = opening.size
    if size is not None and size > wish.max_bytes:
        raise DownloadError(f"{opening.url} is {size_text(size)} long, over the limit of {size_text(wish.max_bytes)}. "
                            "Nothing was fetched.")
    if size == 0:
        raise DownloadError(f"{opening.url} is empty. Check the link.")
    if wish.inspect is not None:
        wish.inspect(lambda offset, length: stoppable(lambda: opening.read(offset, length), wish.stop,
                                                      wish.client.policy.pace.patience(length)), size, name)
    partial.begin(opening.validator, size, parts=opening.ranged)
    partial.write(0, opening.data)
    hashed = PrefixHash(partial.path)
    try:
        fetch_body(opening, partial, hashed, wish.max_bytes, wish.on_progress, wish.stop)
        found = hashed.finish(partial.size, wish.stop)
    except OSError as error:
        raise disk_error(error, partial.folder, _kept(partial) + " ") from None
    finally:
        hashed.close()
    if expected not in (None, found):
        partial.discard()
        raise DownloadError(f"{opening.url} has the SHA-256 {found}, not {expected} as "
                            f"{'asked' if wish.sha256 else 'Hugging Face announces'}. It was thrown away; check both.")
    stoppable(lambda: sync(partial.path), wish.stop, math.inf)
    path = wish.cache.take(partial, found, wish.stop)
    wish.cache.clean(wish.cache_bytes)
    return path, found
