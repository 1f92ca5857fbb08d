"""A picture that a user named by a link -> its bytes. Kept in memory alone; decoding is pipeline/picture.py's."""

from __future__ import annotations

import random

from ..files.names import size_text
from ..http.errors import DownloadError, TransientError
from ..http.policy import Policy, policy_from_environment
from ..http.secrets import Tokens
from ..http.session import Answer, Client
from ..http.threads import Stop, never, pause, stoppable
from .response import check_file, check_opening, check_status
from .source import parse_source

MAX_PICTURE_BYTES = 10_000_000
"""What the hosted image-to-video APIs take."""


def kind_of_picture(data: bytes) -> str | None:
    """"JPEG", "PNG" or "WebP" by the file's first bytes, None for anything else (each format's own signature)."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return None


def check_picture_link(url: str) -> str:
    """The https link of a picture. Raises DownloadError, without a request, for what is no link of a file."""
    if not url.strip():
        raise DownloadError("url is empty. Give the https link of a JPEG, PNG or WebP picture.")
    remote = parse_source(url)
    if remote.look_up:
        raise DownloadError(f"{remote.link} is a page, not a picture. Give the link of the picture itself.")
    return remote.link


def fetch_picture(url: str, *, policy: Policy | None = None, stop: Stop = never,
                  tokens: Tokens = Tokens()) -> bytes:  # noqa: B008
    """The JPEG, PNG or WebP file behind an https link (or `owner/repo/file` of Hugging Face), at most 10 MB.

    stop: called about ten times a second; what it raises ends the download.
    Raises DownloadError with a sentence for the user.
    """
    link = check_picture_link(url)
    client = Client(policy or policy_from_environment(), tokens)
    pace, tries = client.policy.pace, 0
    try:
        while True:
            try:
                return stoppable(lambda: _read(client, link), stop, pace.patience(MAX_PICTURE_BYTES))
            except TransientError as error:
                tries += 1
                if tries >= pace.attempts:
                    raise DownloadError(str(error)) from None
                wait = random.uniform(0, pace.first_wait * 2**tries) if error.wait is None else error.wait
                pause(min(wait, pace.longest_wait), stop)
    finally:
        client.close()


def _read(client: Client, link: str) -> bytes:
    answer = client.get(link, {})
    try:
        check_status(answer, 200)
        check_file(answer)
        size = answer.response.length
        if size is not None and size > MAX_PICTURE_BYTES:
            raise _too_large(answer)
        data = answer.read(MAX_PICTURE_BYTES + 1 if size is None else size)
        if len(data) > MAX_PICTURE_BYTES:
            raise _too_large(answer)
        if size is not None and len(data) < size:
            raise TransientError(f"The connection to {answer.url.host} broke off.")
        check_opening(answer, data)
        if kind_of_picture(data) is None:
            raise DownloadError(f"{answer.url} is not a JPEG, PNG or WebP picture. Give the link of such a file.")
        return data
    finally:
        answer.close()


def _too_large(answer: Answer) -> DownloadError:
    return DownloadError(f"{answer.url} is larger than the {size_text(MAX_PICTURE_BYTES)} that a picture may have. "
                         "Scale it down first.")
