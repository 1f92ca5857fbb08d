"""One request and its answer, as the loopback servers have them."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support import hostile_server

if TYPE_CHECKING:
    from tests.support.loopback_server import TlsServer

LARGEST_BODY = 64 * 2**20
"""Bytes of a request that are read; more gets 413."""


@dataclass
class Seen:
    """A request as it came, and what it was answered."""

    at: float
    """Seconds of time.monotonic()."""
    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: object
    """The JSON of the body; None when it is none."""
    raw: bytes
    """The body."""
    point: str | None = None
    """The point of its route (submit, poll, ...); None when no route takes it."""
    status: int | None = None
    """None while there is no answer, and when a fault left it without one."""


@dataclass(frozen=True)
class Answer:
    """An answer in whole. Content-Length is added when it is sent."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(status: int, content: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


class Refused(Exception):  # noqa: N818  (not an error of the server)
    """A route's way to answer with a refusal from anywhere."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)
        self.answer = answer


Work = Callable[[], Answer]
"""Does what the request asks for, once, and gives the answer it would get."""
Fault = Callable[["Request", Work], None]
"""Answers a request in place of the server; see faults.py."""


class Request(hostile_server.Request):
    """A request being answered; what a route and a fault are given."""

    server: TlsServer
    disable_nagle_algorithm = True
    seen: Seen

    def do_GET(self) -> None:  # noqa: N802
        self.server.owner.serve(self)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815

    def send(self, answer: Answer) -> None:
        self.seen.status = answer.status
        self.answer(answer.status, answer.headers, answer.body)

    def reset(self) -> None:
        """End the connection with a TCP reset, at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def read_body(self) -> bytes | None:
        """The body; None when it does not come whole, is too long or has no length (as for S3's presigned links)."""
        if "Transfer-Encoding" in self.headers:
            return None
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length <= LARGEST_BODY else b""
        return body if len(body) == length else None

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Route:
    """What a server answers: `function(request, **groups of the pattern)` returns an Answer or raises Refused."""

    method: str
    host: str
    pattern: str
    """Regular expression of the whole path, as it is sent (percent-encoded)."""
    point: str
    function: Callable[..., Answer]
    open: bool = False
    """Asked for without a key."""
