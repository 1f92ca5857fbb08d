"""What a server answered, put into a sentence when it is not the file."""

from __future__ import annotations

import email.utils
import time

from .errors import DownloadError, TransientError
from .tokens import CIVITAI, HUGGING_FACE
from .transport import Answer

SNIFFED = 512
"""Bytes of a body that tell a web page."""


def check_status(answer: Answer, *wanted: int) -> None:
    """Raise DownloadError, or TransientError where another try may help, unless the status is one of `wanted`."""
    status = answer.status
    if status in wanted:
        return
    if status in (401, 403):
        raise _no_access(answer)
    if status in (404, 410):
        raise DownloadError(f"{answer.url} does not exist (status {status}). Check the link; the file may have been "
                            "moved or removed.")
    if status == 416:
        raise DownloadError(f"{answer.url} is empty (status 416). Check the link.")
    if status == 429:
        raise TransientError(f"{answer.url.host} allows no more requests for now (status 429). Wait a while.",
                             retry_after(answer.header("Retry-After")))
    if status == 408 or status >= 500:
        raise TransientError(f"{answer.url.host} has trouble of its own (status {status}). Try again later.",
                             retry_after(answer.header("Retry-After")))
    raise DownloadError(f"{answer.url.host} answers with status {status} instead of the file {answer.url}.")


def check_file(answer: Answer) -> None:
    """Raise DownloadError for a body that is packed, or a web page, or whose end could not be told from a cut."""
    coding = (answer.header("Content-Encoding") or "identity").strip().lower()
    if coding != "identity":
        raise DownloadError(f"{answer.url.host} sends the file packed ({coding[:20]}), though asked not to. Its size "
                            "cannot be checked; fetch it yourself and put it into a models folder.")
    kind = (answer.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _web_page(answer)
    response = answer.response
    if answer.status == 200 and response.length is None and not response.chunked:
        raise DownloadError(f"{answer.url.host} does not say how long the file is, so that a cut one would look whole. "
                            "Fetch it yourself and put it into a models folder.")


def check_opening(answer: Answer, opening: bytes) -> None:
    """Raise DownloadError when a file's first bytes are a web page's."""
    start = opening[:SNIFFED].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise _web_page(answer)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); None for anything else."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _no_access(answer: Answer) -> DownloadError:
    service, tokens = answer.service, answer.client.tokens
    what = f"{answer.url} may not be read (status {answer.status}). "
    if service is None:
        return DownloadError(f"{what}Tokens are kept for Hugging Face and Civitai alone; fetch the file yourself and "
                             "put it into a models folder.")
    if not answer.token_sent and tokens.of(service) is None:
        said = f"No {service.name} token was sent: set {tokens.where(service)}."
    elif answer.token_sent:
        said = (f"The {service.name} token that was sent does not open it: it may have expired, or lack the right to "
                "read.")
    else:
        said = f"The {service.name} token was not sent there, because the link leads to another server."
    hint = {HUGGING_FACE: " A gated model must be asked for on its page too; a private or misspelt one looks the same.",
            CIVITAI: " Early-access files need to be bought on the page."}[service]
    return DownloadError(what + said + hint)


def _web_page(answer: Answer) -> DownloadError:
    if answer.service is CIVITAI and answer.url.path.startswith("/login"):  # its answer to a missing token
        return _no_access(answer)
    return DownloadError(f"{answer.url} is a web page, not a file. Give the link of the download button.")
