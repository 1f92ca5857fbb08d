"""A file that a user named -> a whole, checked file on the disk. The face of this package.

What stands behind it, from the outside in: source.py reads what was typed and lookup.py asks which file it stands for;
cache.py keeps what was fetched and online.py brings it there, asking for the file's beginning (opening.py), then for
the rest (body.py) into a partial.py; transport.py makes every connection, to addresses that address.py allows;
policy.py holds all patience.


Asking for a file, with patience: is it the one in the cache, and if not, bring it there.

Which file a repository of Hugging Face or a model of Civitai stands for, asked of their APIs.

Hub: GET /api/models/{repo}/revision/{revision} -> siblings[].rfilename. Civitai: GET /api/v1/models/{id} ->
modelVersions[].id, newest first (developer.civitai.com/site/reference).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..files.names import size_text
from ..http.address import parse_url
from ..http.errors import DownloadError, TransientError, UnknownHostError, redact
from ..http.policy import OFFLINE_VARIABLE, Policy, policy_from_environment
from ..http.secrets import Tokens
from ..http.session import Client
from ..http.threads import Stop, never, pause, stoppable
from .cache import Cache, Entry, check_sha256
from .cache_settings import DEFAULT_BYTES
from .partial import Partial, PrefixHash, disk_error, sync
from .ranged import Progress, fetch_body
from .response import OPENING, NotChanged, Opening, check_status, open_file
from .source import CIVITAI_MODEL, HUB_REPO, Remote, full_name, parse_source

MAX_ANSWER = 2**24
NAMED = 12
"""Files that an error names at most."""


def file_link(client: Client, remote: Remote) -> str:
    """The https link of the file itself; asks only when the source leaves it open.

    Raises DownloadError when there is no such file, or several.
    """
    if remote.look_up == HUB_REPO:
        return _of_repository(client, remote)
    if remote.look_up == CIVITAI_MODEL:
        return _of_model(client, remote)
    return remote.link


def _of_repository(client: Client, remote: Remote) -> str:
    url = parse_url(remote.link)
    repo = "/".join(url.path.split("/")[1:3])
    revision = quote(remote.revision, safe="")
    found = _ask(client, f"{url.origin}/api/models/{repo}/revision/{revision}")
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


def _of_model(client: Client, remote: Remote) -> str:
    url = parse_url(remote.link)
    found = _ask(client, f"{url.origin}/api/v1{url.path}")
    versions = _list(found, "modelVersions", remote.link)
    version = versions[0].get("id") if versions else None
    if not isinstance(version, int):
        raise DownloadError(f"{remote.link} has no version to download. Give the link of the download button.")
    return f"{url.origin}/api/download/models/{version}"


def _ask(client: Client, link: str) -> Any:
    answer = client.get(link, {"Accept": "application/json"})
    try:
        check_status(answer, 200)
        text = answer.read(MAX_ANSWER + 1)
    finally:
        answer.close()
    if len(text) > MAX_ANSWER:
        raise DownloadError(f"{answer.url} answers with more than {size_text(MAX_ANSWER)}. Give the link of the file.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DownloadError(f"{answer.url} does not answer as expected. Give the link of the file.") from None


def _list(found: Any, name: str, link: str) -> list[dict[str, Any]]:
    items = found.get(name) if isinstance(found, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DownloadError(f"{link} could not be looked up: the answer is not as expected. Give the link of the file.")
    return items

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

MAX_BYTES = 4 * 2**30


def _silent(done: int, total: int | None) -> None:
    """The progress of a caller that shows none."""


def fetch(source: str, *, folder: Path, policy: Policy | None = None, sha256: str | None = None,
          max_bytes: int = MAX_BYTES, cache_bytes: int = DEFAULT_BYTES, inspect: Inspect | None = None,
          on_progress: Progress = _silent, stop: Stop = never, tokens: Tokens = Tokens()) -> Path:  # noqa: B008
    """The file that `source` names, out of the cache in `folder` or off the network. Never half a file.

    source: an https link; `owner/repo` or `owner/repo/file.safetensors` of Hugging Face; a link or AIR of Civitai.
    sha256: what the file must be; one that is in the cache is then used without asking the network.
    policy: when it is offline, what the cache has is used, whatever its age.
    cache_bytes: files unused for longest make room beyond it.
    inspect: called with (read, size, name) before the body is asked for, and once more with the file at hand, out of
        the cache or just fetched; what it raises ends the download, and not a byte more is fetched. `read(offset,
        length)` reaches the first 128 MiB.
    on_progress, stop: called about ten times a second in the caller's thread; what stop raises ends the download within
        a second, whatever the server does.
    A download that ended early goes on where it was, in this run and in the next, if the server allows it.
    Raises DownloadError with a sentence for the user.
    """
    try:
        wanted = check_sha256(sha256) if sha256 else None
    except ValueError as error:
        raise DownloadError(str(error)) from None
    policy = policy or policy_from_environment()
    client = Client(policy, tokens)
    wish = Wish(parse_source(source), Cache(folder), client, wanted, max_bytes, cache_bytes, inspect,
                on_progress, stop)
    try:
        path = wish.cache.find(wanted, stop) if wanted else None
        path = path or (_offline(wish) if policy.offline else online(wish))
        if inspect is not None:
            with path.open("rb") as file:
                inspect(lambda offset, length: (file.seek(offset), file.read(length))[1], path.stat().st_size,
                        wish.cache.name(wish.remote.link, path))
    except OSError as error:
        raise disk_error(error, folder) from None
    finally:
        client.close()
    return path


def _offline(wish: Wish) -> Path:
    known = wish.cache.known(wish.remote.link, wish.stop)
    if known is None:
        raise DownloadError(f"{redact(wish.remote.link)} was not fetched yet, and {OFFLINE_VARIABLE} is set. Clear it, "
                            "or put the file into a models folder.")
    return as_pinned(wish, *known)
