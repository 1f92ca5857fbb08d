"""Make one HTTPS request of an API, with what a paid request needs: knowing whether it can have arrived.

The connection is http/session.py's; its errors become those of a remote job here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..http.address import parse_url
from ..http.errors import ConnectionLostError, DownloadError, TransientError
from ..http.policy import Policy, http_date, retry_after
from ..http.session import Body, Session
from .errors import ErrorKind, NoAnswerError, NotSentError, RemoteError

MAX_REPLY = 8 * 2**20
"""Bytes of an API's answer; a model list with schemas is the longest."""
LONGEST_RETRY_AFTER = 120.0
HEADERS = {"Accept": "application/json", "Connection": "close"}


@dataclass(frozen=True)
class Request:
    """A request to make. `body` is None for a GET."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    auth: bool = True
    """Whether the provider's key goes with it, if the URL is of an origin that the key may go to."""
    json_answer: bool = True
    """Whether a good answer must be a JSON object."""


def get(url: str) -> Request:
    """Return a GET of JSON."""
    return Request("GET", url)


def post(url: str, value: object, headers: Mapping[str, str] | None = None) -> Request:
    """Return a POST of JSON."""
    return Request("POST", url, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def form_file(url: str, name: str, data: bytes, content_type: str, field_name: str = "file") -> Request:
    """Return a POST of one file as multipart/form-data (RFC 7578)."""
    boundary = "wan22-" + "0123456789abcdef" * 2
    while boundary.encode() in data:
        boundary += "0"
    head = (f"--{boundary}\r\nContent-Disposition: form-data; name=\"{field_name}\"; filename=\"{name}\"\r\n"
            f"Content-Type: {content_type}\r\n\r\n")
    return Request("POST", url, {"Content-Type": f"multipart/form-data; boundary={boundary}"},
                   head.encode() + data + f"\r\n--{boundary}--\r\n".encode())


@dataclass(frozen=True)
class Reply:
    """A whole answer. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def retry_after(self) -> float | None:
        """Return the seconds that Retry-After asks for, at most 120; None without one."""
        asked = retry_after(self.headers.get("retry-after"), http_date(self.headers.get("date")))
        return None if asked is None else min(asked, LONGEST_RETRY_AFTER)


def _ignored() -> None:
    """Do nothing before the last byte of a request that nobody pays for."""


def exchange(request: Request, policy: Policy, timeout: float, limit: int = MAX_REPLY,
             before_last_byte: Callable[[], None] = _ignored) -> Reply:
    """Make the request and read the reply whole. Once connected, blocks for `timeout` seconds at most, and reads
    `limit` bytes. Redirects are not followed: an API that redirects a POST is not the API that was meant.

    before_last_byte: called when all of the body but its last byte is on its way; until then no server can have
        accepted it.
    Raises NotSentError when the server cannot have had the whole request, NoAnswerError when it may have;
    RemoteError for an address or a certificate that is refused.
    """
    session = Session(policy)
    watchdog = threading.Timer(timeout, session.abort)
    watchdog.daemon = True
    watchdog.start()
    body = Body(request.body, before_last_byte) if request.body else None
    try:
        url = parse_url(request.url)
        response = session.send(request.method, url, {**HEADERS, **request.headers}, body)
        try:
            data = response.read(limit + 1)
            if len(data) <= limit and response.length:
                raise ConnectionLostError("It was cut short.")
        finally:
            response.close()
    except ConnectionLostError:
        if body is None or body.sent:
            raise NoAnswerError(f"{url.host} did not answer, or its answer broke off.") from None
        raise NotSentError(f"The connection to {url.host} broke off before the request was sent.") from None
    except TransientError as error:
        raise NotSentError(f"{error} Nothing was sent.") from None
    except DownloadError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"{error} Nothing was sent.") from None
    finally:
        watchdog.cancel()
        session.close()
    if len(data) > limit:
        raise NoAnswerError(f"{url.host} answers with more than {limit // 2**20} MB, which no answer of its API is.")
    return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, data)
