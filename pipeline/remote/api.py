"""One HTTPS request and its answer, with what a paid request needs: knowing whether it can have arrived.

Stands on the transport of pipeline/download: connections to checked public addresses alone, no proxies, no .netrc.
Redirects are not followed: an API that redirects a POST is not the API that was meant.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from ..http.address import check_public, parse_url
from ..http.errors import DownloadError, TransientError
from ..http.policy import OFFLINE_VARIABLE, Policy
from ..http.session import Connection, trust
from .errors import ErrorKind, NoAnswerError, NotSentError, RemoteError

MAX_ANSWER = 8 * 2**20
"""Bytes of an API's answer; a model list with schemas is the longest."""
LONGEST_RETRY_AFTER = 120.0
AGENT = "ComfyUI-Wan22"


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
    """A GET of JSON."""
    return Request("GET", url)


def post(url: str, value: object, headers: Mapping[str, str] | None = None) -> Request:
    """A POST of JSON."""
    return Request("POST", url, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def form_file(url: str, name: str, data: bytes, content_type: str, field_name: str = "file") -> Request:
    """A POST of one file as multipart/form-data (RFC 7578)."""
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
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def retry_after(self) -> float | None:
        """Seconds that Retry-After asks for (RFC 9110, 10.2.3: a number or a date), at most 120; None without one."""
        text = self.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), LONGEST_RETRY_AFTER)
        try:
            then = parsedate_to_datetime(text).timestamp()
            now = parsedate_to_datetime(self.headers.get("date", "")).timestamp()
        except (TypeError, ValueError, OverflowError):
            return None
        return min(max(then - now, 0.0), LONGEST_RETRY_AFTER)


def _nothing() -> None:
    """Before the last byte of a request that nobody pays for."""


def exchange(request: Request, policy: Policy, patience: float, limit: int = MAX_ANSWER,
             before_last_byte: Callable[[], None] = _nothing) -> Reply:
    """Make the request and read the answer whole. Once connected, blocks for `patience` seconds at most, and reads
    `limit` bytes.

    before_last_byte: called when all of the body but its last byte is on its way; until then no server can have
        accepted it.
    Raises NotSentError when the server cannot have had the whole request, NoAnswerError when it may have;
    RemoteError for an address or a certificate that is refused.
    """
    connection = _connect(request.url, policy)
    host = connection.host
    watchdog = threading.Timer(patience, _abort, [connection])
    watchdog.daemon = True
    watchdog.start()
    try:
        sent = _send(connection, request, before_last_byte)
        try:
            # A server may also refuse a large body before all of it has come.
            response = connection.getresponse()
            body = response.read(limit + 1)
            if response.length and len(body) <= limit:
                raise http.client.IncompleteRead(body, response.length)
        except (OSError, http.client.HTTPException, ValueError):
            if sent:
                raise NoAnswerError(f"{host} did not answer, or its answer broke off.") from None
            raise NotSentError(f"The connection to {host} broke off before the request was sent.") from None
        if len(body) > limit:
            raise NoAnswerError(f"{host} answers with more than {limit // 2**20} MB, which no answer of its API is.")
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
    finally:
        watchdog.cancel()
        connection.close()


def _connect(link: str, policy: Policy) -> Connection:
    try:
        url = parse_url(link)
        if policy.offline:
            raise DownloadError(f"{url.host} is not asked: {OFFLINE_VARIABLE} is set. Clear it to use the network.")
        test = policy.loopback.get(url.authority)
        if test is not None:
            connection = Connection(url, [test], trust(policy.loopback_ca), policy.pace)
        else:
            addresses = check_public(url, policy.resolve(url.host, url.port))
            connection = Connection(url, [(address, url.port) for address in addresses], trust(None), policy.pace)
        connection.connect()
    except TransientError as error:
        raise NotSentError(str(error)) from None
    except DownloadError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, str(error)) from None
    except ssl.SSLCertVerificationError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"{url.host} could not prove who it is ({error.verify_message}). "
                          "Nothing was sent. Check this machine's clock.") from None
    except OSError:
        raise NotSentError(f"{url.host} cannot be reached. Nothing was sent. Is this machine online?") from None
    return connection


def _abort(connection: Connection) -> None:
    """Make what waits on the connection return; from the watchdog's thread."""
    with suppress(OSError, AttributeError):
        socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)


def _send(connection: Connection, request: Request, before_last_byte: Callable[[], None]) -> bool:
    """Send the request; returns False when the connection broke off before its last byte."""
    url, body = parse_url(request.url), request.body
    try:
        connection.putrequest(request.method, url.target, skip_host=True, skip_accept_encoding=True)
        length = {} if body is None else {"Content-Length": str(len(body))}
        for name, value in {"Host": url.authority, "User-Agent": AGENT, "Accept": "application/json",
                            "Accept-Encoding": "identity", "Connection": "close", **length,
                            **request.headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        if body:
            connection.send(body[:-1])
    except (OSError, http.client.HTTPException):
        return False
    before_last_byte()
    if body:
        with suppress(OSError):  # it may have been delivered all the same; the answer tells
            connection.send(body[-1:])
    return True
