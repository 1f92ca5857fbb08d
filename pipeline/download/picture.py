"""Fetch a picture that a user named by a link. Kept in memory alone; decoding is video/picture.py's."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import closing

from ..files.names import size_text
from ..http.errors import DownloadError, TransientError
from ..http.policy import Policy, policy_from_environment
from ..http.secrets import Tokens
from ..http.session import Response, Session
from ..http.threads import Stop, never, pause, stoppable
from .response import check_beginning, check_file, check_status
from .source import parse_source

MAX_PICTURE_BYTES = 10_000_000
"""Formats that the hosted image-to-video APIs take."""


def kind_of_picture(data: bytes) -> str | None:
    """Return "JPEG", "PNG" or "WebP" by the file's first bytes, else None (each format's own signature)."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return None


def check_picture_link(url: str) -> str:
    """Return the https link of a picture. Raises DownloadError, without a request, for what is no link of a file."""
    if not url.strip():
        raise DownloadError("url is empty. Give the https link of a JPEG, PNG or WebP picture.")
    remote = parse_source(url)
    if remote.look_up:
        raise DownloadError(f"{remote.link} is a page, not a picture. Give the link of the picture itself.")
    return remote.link


def _unsaid(text: str) -> None:
    """Show nothing."""


def fetch_picture(url: str, *, policy: Policy | None = None, stop: Stop = never,
                  tokens: Tokens = Tokens(), say: Callable[[str], None] = _unsaid) -> bytes:  # noqa: B008
    """Return the JPEG, PNG or WebP file behind an https link (or `owner/repo/file` of Hugging Face), at most 10 MB.

    stop: called about ten times a second; what it raises ends the download. say: told of a proxy that is used.
    All tries together take no longer than 10 MB may. Raises DownloadError with a sentence for the user.
    """
    link = check_picture_link(url)
    policy = policy or policy_from_environment()
    if way := policy.through_proxy(link):
        say(f"Fetching the picture{way}.")
    timeouts, tries = policy.timeouts, 0
    end = time.monotonic() + timeouts.for_bytes(MAX_PICTURE_BYTES)
    while True:
        try:
            with closing(Session(policy, tokens)) as session:  # a new one: the last may have been aborted
                return stoppable(functools.partial(_read, session, link), stop, end - time.monotonic(), session.abort)
        except TransientError as error:
            tries += 1
            wait = timeouts.before_retry(tries, error.wait)
            if tries >= timeouts.attempts or time.monotonic() + wait + timeouts.connect > end:
                raise DownloadError(str(error)) from None
            pause(wait, stop)


def _read(session: Session, link: str) -> bytes:
    response = session.get(link, {})
    try:
        check_status(response, 200)
        check_file(response)
        size = response.length
        if size is not None and size > MAX_PICTURE_BYTES:
            raise _too_large(response)
        data = response.read(MAX_PICTURE_BYTES + 1 if size is None else size)
        if len(data) > MAX_PICTURE_BYTES:
            raise _too_large(response)
        if size is not None and len(data) < size:
            raise TransientError(f"The connection to {response.url.host} broke off.")
        check_beginning(response, data)
        if kind_of_picture(data) is None:
            raise DownloadError(f"{response.url} is not a JPEG, PNG or WebP picture. Give the link of such a file.")
        return data
    finally:
        response.close()


def _too_large(response: Response) -> DownloadError:
    return DownloadError(f"{response.url} is larger than the {size_text(MAX_PICTURE_BYTES)} that a picture may have. "
                         "Scale it down first.")
