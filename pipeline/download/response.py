"""Ask for the beginning of a file: has it changed, how long is it, can it be had in parts. Or say why it is not there.

RFC 9110: ranges (14), validators and preconditions (8.8, 13).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..files.names import size_text
from ..http.address import Url
from ..http.errors import DownloadError, TransientError
from ..http.policy import retry_after
from ..http.secrets import CIVITAI, HUGGING_FACE
from ..http.session import Response, Session
from .source import said_name

if TYPE_CHECKING:
    from .cache import Entry

SNIFFED = 512
"""Bytes of a body that tell a web page."""
BEGINNING = 2**16
"""Bytes asked for first: the headers of most safetensors files."""
MAX_INSPECTED = 2**27
"""Bytes from the beginning that may be looked at before the body is fetched: over the 100 MB of the longest header."""
LONGEST_VALIDATOR = 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class NotChanged(Exception):  # noqa: N818 - an outcome, not an error
    """The file is the one that is known already."""


class ChangedError(TransientError):
    """The file was replaced on the server while it was fetched."""


@dataclass
class FirstResponse:
    """The beginning of a file, and the connection for the rest of it. To be closed."""

    session: Session
    url: Url
    """The address of the file itself, after redirects."""
    size: int | None
    """Bytes of the whole file; None when the server does not say before the end."""
    etag: str | None
    last_modified: str | None
    ranged: bool
    """True when the server sends parts."""
    announced_sha256: str | None
    said_name: str | None
    """The server's name of the file."""
    token_sent: bool
    """True when a token went there, and so may go with the requests that follow."""
    rest: Response | None
    """The body under way from byte len(data), of a server that does not send parts."""
    data: bytearray = field(default_factory=bytearray)

    @property
    def validator(self) -> str | None:
        """The mark that tells this version of the file from any other; None when there is none."""
        return strong_validator(self.etag, self.last_modified)

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes offset..offset+length-1, fewer at the file's end; ask for what has not come yet and no more.

        Raises DownloadError past the first 128 MiB.
        """
        end = offset + length if self.size is None else min(offset + length, self.size)
        if end > MAX_INSPECTED:
            raise DownloadError(f"{self.url} has a header of more than {size_text(MAX_INSPECTED)}, which no model has.")
        if end > len(self.data):
            self._extend(end)
        return bytes(self.data[offset:end])

    def ask(self, start: int, end: int) -> Response:
        """Ask for the bytes start..end-1; see open_range."""
        return open_range(self.session, self.url, self.validator, start, end, with_token=self.token_sent)

    def _extend(self, end: int) -> None:
        response = self.rest or self.ask(len(self.data), end)
        try:
            self.data += response.read(end - len(self.data))
        finally:
            if response is not self.rest:
                response.close()
        if len(self.data) < end and self.size is not None:
            raise TransientError(f"The connection to {self.url.host} broke off.")

    def close(self) -> None:
        if self.rest is not None:
            self.rest.close()


def open_file(session: Session, link: str, known: Entry | None = None, *, parts: bool = True) -> FirstResponse:
    """Ask for the first 64 KiB of a file; for all of it without `parts`, and where nothing would tell whether two parts
    belong together.

    Raises NotChanged when it is still the one that is `known`; DownloadError or TransientError when it is not to be
    had.
    """
    headers = {"Range": f"bytes=0-{BEGINNING - 1}"} if parts else {}
    if known is not None and known.etag:
        headers["If-None-Match"] = known.etag
    elif known is not None and known.last_modified:
        headers["If-Modified-Since"] = known.last_modified
    response = session.get(link, headers)
    keep = False
    try:
        if response.status == 304 and known is not None:
            raise NotChanged
        check_status(response, 200, *([206] if parts else []))
        check_file(response)
        ranged = response.status == 206
        if ranged:
            start, end, size = content_range(response)
            if size is None or (start, end) != (0, min(BEGINNING, size)):
                raise DownloadError(f"{response.url.host} sends another part of the file than was asked for.")
        else:
            end, size = BEGINNING, response.length
        data = response.read(end if size is None else min(end, size))
        if len(data) < (0 if size is None else min(end, size)):
            raise TransientError(f"The connection to {response.url.host} broke off.")
        check_beginning(response, data)
        etag, last_modified = _usable(response.header("ETag")), _usable(response.header("Last-Modified"))
        if ranged and len(data) < size and strong_validator(etag, last_modified) is None:
            return open_file(session, link, known, parts=False)
        keep = not ranged
        return FirstResponse(
            session, response.url, size, etag, last_modified, ranged, response.announced_sha256,
            said_name(response.header("Content-Disposition")), response.token_sent, response if keep else None,
            bytearray(data))
    finally:
        if not keep:
            response.close()


def open_range(session: Session, url: Url, validator: str | None, start: int, end: int, *, with_token: bool,
               ) -> Response:
    """Ask for the bytes start..end-1 of the same file.

    Raises ChangedError when it is no longer the same, TransientError when it is no longer to be had there: links that
    redirects lead to expire, and the first link tells.
    """
    name = "ETag" if validator and validator.startswith('"') else "Last-Modified"
    headers = {"Range": f"bytes={start}-{end - 1}"}
    response = session.get(url, {**headers, **({"If-Range": validator} if validator else {})}, with_token=with_token)
    trusted = (None, validator)
    if response.status == 200 and validator and response.header(name) == validator:
        response.close()  # the same file: the server does not know If-Range
        response = session.get(url, headers, with_token=with_token)
        trusted = (validator,)
    try:
        if response.status == 200:
            raise ChangedError(f"{url} changed while it was fetched.")
        try:
            check_status(response, 206)
        except TransientError:
            raise
        except DownloadError as error:
            raise TransientError(str(error)) from None
        check_file(response)
        if validator and response.header(name) not in trusted:
            raise ChangedError(f"{url} changed while it was fetched.")  # the server did not mind If-Range
        if content_range(response)[:2] != (start, end):
            raise TransientError(f"{url.host} sends another part of the file than was asked for.")
    except BaseException:
        response.close()
        raise
    return response


def strong_validator(etag: str | None, last_modified: str | None) -> str | None:
    """Return what If-Range may hold: a strong ETag, else the date of the last change; None when there is neither."""
    if etag and etag.startswith('"'):
        return etag
    return last_modified


def _usable(header: str | None) -> str | None:
    """Return a header's value that may be sent back as it is, None for any other."""
    return header if header and header.isascii() and header.isprintable() and len(header) <= LONGEST_VALIDATOR else None


def content_range(response: Response) -> tuple[int, int, int | None]:
    """Return the first byte, end (exclusive) and whole size that a 206 says it holds. Raises DownloadError for none."""
    match = _CONTENT_RANGE.fullmatch((response.header("Content-Range") or "").strip())
    if match is None:
        raise DownloadError(f"{response.url.host} answers a request for a part without saying which part it is.")
    first, last, size = match.groups()
    return int(first), int(last) + 1, None if size == "*" else int(size)


def check_status(response: Response, *wanted: int) -> None:
    """Raise DownloadError, or TransientError where another try may help, unless the status is one of `wanted`."""
    status, url = response.status, response.url
    if status in wanted:
        return
    if status in (401, 403):
        raise _no_access(response)
    if status in (404, 410):
        raise DownloadError(f"{url} does not exist (status {status}). Check the link; the file may have been moved or "
                            "removed.")
    if status == 416:
        raise DownloadError(f"{url} is empty (status 416). Check the link.")
    if status == 429:
        raise TransientError(f"{url.host} allows no more requests for now (status 429). Wait a while.",
                             retry_after(response.header("Retry-After")))
    if status == 408 or status >= 500:
        raise TransientError(f"{url.host} has trouble of its own (status {status}). Try again later.",
                             retry_after(response.header("Retry-After")))
    raise DownloadError(f"{url.host} answers with status {status} instead of the file {url}.")


def check_file(response: Response) -> None:
    """Raise DownloadError for a body that is packed, or a web page, or whose end could not be told from a cut."""
    host = response.url.host
    coding = (response.header("Content-Encoding") or "identity").strip().lower()
    if coding != "identity":
        raise DownloadError(f"{host} sends the file packed ({coding[:20]}), though asked not to. Its size cannot be "
                            "checked; fetch it yourself and put it into a models folder.")
    kind = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _web_page(response)
    if response.status == 200 and not response.ends_by_itself:
        raise DownloadError(f"{host} does not say how long the file is, so that a cut one would look whole. Fetch it "
                            "yourself and put it into a models folder.")


def check_beginning(response: Response, data: bytes) -> None:
    """Raise DownloadError when a file's first bytes are a web page's."""
    start = data[:SNIFFED].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise _web_page(response)


def _no_access(response: Response) -> DownloadError:
    service, tokens = response.service, response.session.tokens
    what = f"{response.url} may not be read (status {response.status}). "
    if service is None:
        return DownloadError(f"{what}Tokens are kept for Hugging Face and Civitai alone; fetch the file yourself and "
                             "put it into a models folder.")
    if response.token_sent:
        said = (f"The {service.name} token that was sent does not open it: it may have expired, or lack the right to "
                "read.")
    elif response.untrusted_mirror is not None:
        said = (f"No token is sent to the mirror {response.untrusted_mirror.authority}, which HF_ENDPOINT names: where "
                f"you trust it with your token, set {tokens.where_mirror()} to its name.")
    elif tokens.of(service) is None:
        said = f"No {service.name} token was sent: set {tokens.where(service)}."
    else:
        said = f"The {service.name} token was not sent there, because the link leads to another server."
    hint = {HUGGING_FACE: " A gated model must be asked for on its page too; a private or misspelt one looks the same.",
            CIVITAI: " Early-access files need to be bought on the page."}[service]
    return DownloadError(what + said + hint)


def _web_page(response: Response) -> DownloadError:
    if response.service is CIVITAI and response.url.path.startswith("/login"):  # its answer to a missing token
        return _no_access(response)
    return DownloadError(f"{response.url} is a web page, not a file. Give the link of the download button.")
