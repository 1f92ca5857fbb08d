"""A file that a user named -> a whole, checked file on the disk. The face of this package.

What stands behind it, from the outside in: source.py reads what was typed and lookup.py asks which file it stands for;
cache.py keeps what was fetched; opening.py asks for the file's beginning, body.py for the rest, into partial.py;
transport.py makes every connection, to addresses that address.py allows; policy.py holds all patience.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .body import Progress, fetch_body
from .cache import Cache, check_sha256
from .errors import DownloadError, TransientError, UnknownHostError, redact, size_text
from .hashing import PrefixHash
from .index import Entry
from .lookup import file_link
from .opening import OPENING, NotChanged, Opening, open_file
from .partial import Partial, disk_error, sync
from .policy import Policy, policy_from_environment
from .source import Remote, parse_source
from .tokens import Tokens
from .transport import Client
from .waiting import Stop, never, pause, stoppable

MAX_BYTES = 4 * 2**30
CACHE_BYTES = 50 * 2**30
Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer at the end of the file."""
Inspect = Callable[[Read, "int | None"], None]
"""(read, size in bytes or None) -> raises ValueError when the file is not wanted."""


def _silent(done: int, total: int | None) -> None:
    """The progress of a caller that shows none."""


@dataclass(frozen=True)
class _Wish:
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


def fetch(source: str, *, folder: Path, policy: Policy | None = None, sha256: str | None = None, offline: bool = False,
          max_bytes: int = MAX_BYTES, cache_bytes: int = CACHE_BYTES, inspect: Inspect | None = None,
          on_progress: Progress = _silent, stop: Stop = never, tokens: Tokens = Tokens()) -> Path:  # noqa: B008
    """The file that `source` names, out of the cache in `folder` or off the network. Never half a file.

    source: an https link; `owner/repo` or `owner/repo/file.safetensors` of Hugging Face; a link or AIR of Civitai.
    sha256: what the file must be; one that is in the cache is then used without asking the network.
    offline: use what the cache has, whatever its age.
    cache_bytes: files unused for longest make room beyond it.
    inspect: called with (read, size) before the body is asked for, and once more with the file at hand, out of the
        cache or just fetched; what it raises ends the download, and not a byte more is fetched. `read(offset, length)`
        reaches the first 128 MiB.
    on_progress, stop: called about ten times a second in the caller's thread; what stop raises ends the download within
        a second, whatever the server does.
    A download that ended early goes on where it was, in this run and in the next, if the server allows it.
    Raises DownloadError with a sentence for the user.
    """
    try:
        wanted = check_sha256(sha256) if sha256 else None
    except ValueError as error:
        raise DownloadError(str(error)) from None
    client = Client(policy or policy_from_environment(), tokens)
    wish = _Wish(parse_source(source), Cache(folder), client, wanted, max_bytes, cache_bytes, inspect,
                 on_progress, stop)
    try:
        path = (wish.cache.find(wanted, stop) if wanted else None) or (_offline(wish) if offline else _online(wish))
        if inspect is not None:
            with path.open("rb") as file:
                inspect(lambda offset, length: (file.seek(offset), file.read(length))[1], path.stat().st_size)
    except OSError as error:
        raise disk_error(error, folder) from None
    finally:
        client.close()
    return path


def _offline(wish: _Wish) -> Path:
    known = wish.cache.known(wish.remote.link, wish.stop)
    if known is None:
        raise DownloadError(f"{redact(wish.remote.link)} was not fetched yet, and offline is set. Clear offline, or "
                            "put the file into a models folder.")
    return _pinned(wish, *known)


def _pinned(wish: _Wish, entry: Entry, path: Path) -> Path:
    if wish.sha256 not in (None, entry.sha256):
        raise DownloadError(f"{redact(wish.remote.link)} has the SHA-256 {entry.sha256}, not {wish.sha256} as asked. "
                            "Check both.")
    return path


def _online(wish: _Wish) -> Path:
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


def _attempt(wish: _Wish, partial: Partial) -> Path:
    stop, cache, patience = wish.stop, wish.cache, wish.client.policy.pace.patience(OPENING)
    known = cache.known(wish.remote.link, stop)
    try:
        opening = stoppable(lambda: open_file(wish.client, file_link(wish.client, wish.remote),
                                              known[0] if known else None), stop, patience)
    except NotChanged:
        return _pinned(wish, *known)
    except TransientError:
        if known is None:
            raise
        return _pinned(wish, *known)  # nobody to ask whether it changed: better than nothing
    try:
        expected = wish.sha256 or opening.announced_sha256
        if wish.sha256 not in (None, opening.announced_sha256) and opening.announced_sha256 is not None:
            raise DownloadError(f"{opening.url} has the SHA-256 {opening.announced_sha256}, not {wish.sha256} as "
                                "asked. Nothing was fetched. Check both.")
        there = cache.find(expected, stop) if expected else None  # the same file under another link
        if there is None:
            there, expected = _download(wish, opening, partial, expected)
        link = wish.remote.link
        cache.note(link, redact(link), Entry(expected, opening.etag, opening.last_modified))
        return there
    finally:
        opening.close()


def _download(wish: _Wish, opening: Opening, partial: Partial, expected: str | None) -> tuple[Path, str]:
    """Look at the beginning, then fetch the rest; returns the file in the cache and its hash."""
    size = opening.size
    if size is not None and size > wish.max_bytes:
        raise DownloadError(f"{opening.url} is {size_text(size)} long, over the limit of {size_text(wish.max_bytes)}. "
                            "Nothing was fetched.")
    if size == 0:
        raise DownloadError(f"{opening.url} is empty. Check the link.")
    if wish.inspect is not None:
        wish.inspect(lambda offset, length: stoppable(lambda: opening.read(offset, length), wish.stop,
                                                      wish.client.policy.pace.patience(length)), size)
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
