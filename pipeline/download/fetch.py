"""A file that a user named -> a whole, checked file on the disk. The face of this package.

What stands behind it, from the outside in: source.py reads what was typed and lookup.py asks which file it stands for;
cache.py keeps what was fetched and online.py brings it there, asking for the file's beginning (opening.py), then for
the rest (body.py) into a partial.py; transport.py makes every connection, to addresses that address.py allows;
policy.py holds all patience.
"""

from __future__ import annotations

from pathlib import Path

from .body import Progress
from .cache import Cache, check_sha256
from .errors import DownloadError, redact
from .limit import DEFAULT_BYTES
from .online import Inspect, Wish, as_pinned, online
from .partial import disk_error
from .policy import OFFLINE_VARIABLE, Policy, policy_from_environment
from .source import parse_source
from .tokens import Tokens
from .transport import Client
from .waiting import Stop, never

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
