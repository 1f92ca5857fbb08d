"""Fetch a file that a user named: a whole, checked file on the disk, or an error. The face of this package.

From the outside in: source.py reads what was typed; cache.py keeps what was fetched; response.py asks for the file's
beginning and ranged.py for the rest, over one connection or several, into a partial.py; http/session.py makes every
request.

Hugging Face's API: GET /api/models/{repo}/revision/{revision} -> siblings[].rfilename. Civitai's: GET
/api/v1/models/{id} -> modelVersions[].id, newest first (developer.civitai.com/site/reference).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..files.names import size_text
from ..http.address import parse_url
from ..http.errors import DownloadError, TransientError, UnknownHostError, redact
from ..http.policy import OFFLINE_VARIABLE, Policy, policy_from_environment
from ..http.secrets import Tokens
from ..http.session import Session
from ..http.threads import Stop, never, pause, stoppable
from .cache import Cache, Entry, check_sha256
from .cache_settings import DEFAULT_BYTES
from .partial import NoRoomError, Partial, PrefixHash, disk_error, sync
from .ranged import Progress, fetch_body
from .response import BEGINNING, FirstResponse, NotChanged, check_status, open_file
from .source import CIVITAI_MODEL, HUB_REPO, Remote, full_name, parse_source

MAX_BYTES = 4 * 2**30
MAX_REPLY = 2**24
"""Bytes of an API's reply."""
NAMED = 12
"""Files that an error names at most."""
Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes, fewer at the end of the file."""
Inspect = Callable[[Read, "int | None", str], None]
"""(read, size in bytes or None, name with folders) -> raises ValueError when the file is not wanted.

The name is for show and for hints: the path in the link, and behind it what the server calls the file.
"""


@dataclass(frozen=True)
class DownloadRequest:
    """A file to fetch; see `fetch`."""

    remote: Remote
    cache: Cache
    policy: Policy
    tokens: Tokens
    sha256: str | None
    max_bytes: int
    cache_bytes: int
    inspect: Inspect | None
    on_progress: Progress
    stop: Stop


def _silent(done: int, total: int | None) -> None:
    """Show no progress."""


def fetch(source: str, *, folder: Path, policy: Policy | None = None, sha256: str | None = None,
          max_bytes: int = MAX_BYTES, cache_bytes: int = DEFAULT_BYTES, inspect: Inspect | None = None,
          on_progress: Progress = _silent, stop: Stop = never, tokens: Tokens = Tokens()) -> Path:  # noqa: B008
    """Return the file that `source` names, out of the cache in `folder` or off the network. Never half a file.

    source: an https link; `owner/repo` or `owner/repo/file.safetensors` of Hugging Face; a link or AIR of Civitai.
    sha256: what the file must be; one that is in the cache is then used without asking the network.
    policy: when it is offline, what the cache has is used, whatever its age.
    cache_bytes: what nobody fetches any more and files unused for longest make room beyond it.
    inspect: called with (read, size, name) before the body is asked for, and once more with the file at hand, out of
        the cache or just fetched; what it raises ends the download, and not a byte more is fetched. `read(offset,
        length)` reaches the first 128 MiB.
    on_progress, stop: called about ten times a second in the caller's thread; what stop raises ends the download within
        a second, whatever the server does.
    A download that ended early goes on where it was, in this run and in the next, if the server allows it; else nothing
    of it is left on the disk.
    Raises DownloadError with a sentence for the user.
    """
    try:
        wanted = check_sha256(sha256) if sha256 else None
    except ValueError as error:
        raise DownloadError(str(error)) from None
    policy = policy or policy_from_environment()
    request = DownloadRequest(parse_source(source), Cache(folder), policy, tokens, wanted, max_bytes, cache_bytes,
                              inspect, on_progress, stop)
    try:
        path = request.cache.find(wanted, stop) if wanted else None
        path = path or (_offline(request) if policy.offline else online(request))
        if inspect is not None:
            with path.open("rb") as file:
                inspect(lambda offset, length: (file.seek(offset), file.read(length))[1], path.stat().st_size,
                        request.cache.name(request.remote.link, path))
    except OSError as error:
        raise disk_error(error, folder) from None
    return path


def _offline(request: DownloadRequest) -> Path:
    known = request.cache.known(request.remote.link, request.stop)
    if known is None:
        raise DownloadError(f"{redact(request.remote.link)} was not fetched yet, and {OFFLINE_VARIABLE} is set. Clear "
                            "it, or put the file into a models folder.")
    return as_pinned(request, *known)


def as_pinned(request: DownloadRequest, entry: Entry, path: Path) -> Path:
    """Return the file that is known of a link. Raises DownloadError when another was asked for."""
    if request.sha256 not in (None, entry.sha256):
        raise DownloadError(f"{redact(request.remote.link)} has the SHA-256 {entry.sha256}, not {request.sha256} as "
                            "asked. Check both.")
    return path


def online(request: DownloadRequest) -> Path:
    """Fetch the file, or find that it is still the one in the cache; try again while a server is in trouble."""
    with request.cache.lock(request.remote.link, request.stop):
        partial = request.cache.partial(request.remote.link)
        try:
            return _tries(request, partial)
        except BaseException as error:
            if not _is_worth_keeping(partial, error):
                with suppress(OSError):  # what ended the download is what counts
                    partial.discard()
            raise


def _is_worth_keeping(partial: Partial, error: BaseException) -> bool:
    """Whether the next run may go on from what is there: only of a known version, and from what the note tells.

    After Stop, which waits for nothing, the note may still be under way.
    """
    return partial.resumable and (partial.noted > 0 or not isinstance(error, DownloadError))


def _tries(request: DownloadRequest, partial: Partial) -> Path:
    timeouts, vain = request.policy.timeouts, 0
    while True:
        before = partial.done
        try:
            with closing(Session(request.policy, request.tokens)) as session:  # a new one: the last may be aborted
                return _attempt(request, session, partial)
        except TransientError as error:
            if isinstance(error, UnknownHostError):
                raise
            vain = vain + 1 if partial.done - before < timeouts.step else 0
            if vain >= timeouts.attempts:
                then = ": run again to go on from there." if partial.noted else "; run again to start anew."
                raise DownloadError(f"{error} {_kept(partial)}{then}") from None
            pause(timeouts.before_retry(vain, error.wait), request.stop)


def _kept(partial: Partial) -> str:
    """Tell what the next run finds, without the full stop."""
    if not partial.noted:
        return "Nothing was kept"
    of = f" of {size_text(partial.size)}" if partial.size else ""
    return f"{size_text(partial.noted)}{of} are kept"


def _attempt(request: DownloadRequest, session: Session, partial: Partial) -> Path:
    stop, cache, timeout = request.stop, request.cache, request.policy.timeouts.for_bytes(BEGINNING)
    known = cache.known(request.remote.link, stop)

    def ask() -> tuple[str, FirstResponse]:
        link = file_link(session, request.remote)
        return link, open_file(session, link, known[0] if known else None)

    try:
        file, first = stoppable(ask, stop, timeout, session.abort)
    except NotChanged:
        return as_pinned(request, *known)
    except TransientError:
        if known is None:
            raise
        return as_pinned(request, *known)  # nobody to ask whether it changed: better than nothing
    name = full_name(file, first.said_name)
    try:
        expected = request.sha256 or first.announced_sha256
        if request.sha256 not in (None, first.announced_sha256) and first.announced_sha256 is not None:
            raise DownloadError(f"{first.url} has the SHA-256 {first.announced_sha256}, not {request.sha256} as "
                                "asked. Nothing was fetched. Check both.")
        there = cache.find(expected, stop) if expected else None  # the same file under another link
        if there is None:
            there, expected = _download(request, first, name, partial, expected)
        link = request.remote.link
        cache.note(link, redact(link), Entry(expected, first.etag, first.last_modified, name))
        return there
    finally:
        first.close()


def _download(request: DownloadRequest, first: FirstResponse, name: str, partial: Partial, expected: str | None,
              ) -> tuple[Path, str]:
    """Look at the beginning, then fetch the rest; return the file in the cache and its hash."""
    size = first.size
    if size is not None and size > request.max_bytes:
        raise DownloadError(f"{first.url} is {size_text(size)} long, over the limit of {size_text(request.max_bytes)}. "
                            "Nothing was fetched.")
    if size == 0:
        raise DownloadError(f"{first.url} is empty. Check the link.")
    if request.inspect is not None:
        timeouts = request.policy.timeouts
        request.inspect(lambda offset, length: stoppable(lambda: first.read(offset, length), request.stop,
                                                         timeouts.for_bytes(length), first.session.abort), size, name)
    request.cache.clean(request.cache_bytes)  # before it too: downloads that all end early would fill the disk else
    try:
        partial.begin(first.validator, size, parts=first.ranged)
        partial.write(0, first.data)
        with closing(PrefixHash(partial.path)) as hashed:
            fetch_body(first, partial, hashed, request.max_bytes, request.on_progress, request.stop)
            found = hashed.finish(partial.size, request.stop)
    except NoRoomError as error:
        raise DownloadError(f"{error} {_kept(partial)}. Make room, and run again.") from None
    except OSError as error:
        raise disk_error(error, partial.folder, f"{_kept(partial)}. ") from None
    if expected not in (None, found):
        partial.discard()
        source = "asked" if request.sha256 else "Hugging Face announces"
        raise DownloadError(f"{first.url} has the SHA-256 {found}, not {expected} as {source}. It was thrown away; "
                            "check both.")
    stoppable(lambda: sync(partial.path), request.stop, math.inf, never)
    path = request.cache.take(partial, found, request.stop)
    request.cache.clean(request.cache_bytes)
    return path, found


def file_link(session: Session, remote: Remote) -> str:
    """Return the https link of the file itself; ask only when the source leaves it open.

    Raises DownloadError when there is no such file, or several.
    """
    if remote.look_up == HUB_REPO:
        return _of_repository(session, remote)
    if remote.look_up == CIVITAI_MODEL:
        return _of_model(session, remote)
    return remote.link


def _of_repository(session: Session, remote: Remote) -> str:
    url = parse_url(remote.link)
    repo = "/".join(url.path.split("/")[1:3])
    revision = quote(remote.revision, safe="")
    found = _ask(session, f"{url.origin}/api/models/{repo}/revision/{revision}")
    names = [str(item.get("rfilename", "")) for item in _list(found, "siblings", remote.link)]
    inside = f"{remote.folder}/" if remote.folder else ""
    files = sorted(name for name in names if name.startswith(inside) and name.lower().endswith(".safetensors"))
    if not files:
        raise DownloadError(f"{unquote(remote.link)} holds no safetensors file. Give the link of the file.")
    if len(files) > 1:
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        raise DownloadError(f"{repo} holds {len(files)} safetensors files: {', '.join(files[:NAMED])}{more}. Say "
                            f"which, as in {repo}/{files[0]}.")
    return f"{url.origin}/{repo}/resolve/{revision}/{quote(files[0])}"


def _of_model(session: Session, remote: Remote) -> str:
    url = parse_url(remote.link)
    found = _ask(session, f"{url.origin}/api/v1{url.path}")
    versions = _list(found, "modelVersions", remote.link)
    version = versions[0].get("id") if versions else None
    if not isinstance(version, int):
        raise DownloadError(f"{remote.link} has no version to download. Give the link of the download button.")
    return f"{url.origin}/api/download/models/{version}"


def _ask(session: Session, link: str) -> Any:
    response = session.get(link, {"Accept": "application/json"})
    try:
        check_status(response, 200)
        text = response.read(MAX_REPLY + 1)
    finally:
        response.close()
    if len(text) > MAX_REPLY:
        raise DownloadError(f"{response.url} answers with more than {size_text(MAX_REPLY)}. Give the link of the file.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DownloadError(f"{response.url} does not answer as expected. Give the link of the file.") from None


def _list(found: Any, name: str, link: str) -> list[dict[str, Any]]:
    items = found.get(name) if isinstance(found, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DownloadError(f"{link} could not be looked up: the answer is not as expected. Give the link of the file.")
    return items
