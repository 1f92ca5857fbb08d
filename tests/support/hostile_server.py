"""A loopback https server that does to a download whatever a server may do.

Routes are functions of the request; `File` is the one of an honest file server, with faults to choose.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from pipeline.http import policy as http
from pipeline.http.policy import Policy, Timeouts
from tests.support.loopback import loopback_policy
from tests.support.loopback_server import AUTHORITY, LoopbackServer, Request, Seen

HOSTS = ("a.example", "b.example", "huggingface.co", "cdn.example", "civitai.com", "civitai.red", "low.example")
QUICK = Timeouts(connect=5.0, read=5.0, window=5.0, attempts=3, first_wait=0.01, longest_wait=0.05, measure=0.1,
                 worth=0.3)
"""Timeouts for tests, where waiting tells nothing."""
Route = Callable[[Request], None]


class HostileServer(LoopbackServer):
    """A server whose routes, by path or by host and path, answer as they like."""

    def __init__(self, folder: Path, authority: trustme.CA = AUTHORITY) -> None:
        self.routes: dict[str, Route] = {}
        super().__init__(folder, HOSTS, authority)

    def serve(self, request: Request) -> None:
        seen = request.seen
        route = self.routes.get(seen.host + seen.path) or self.routes.get(seen.path)
        if route is None:
            request.answer(404)
        else:
            route(request)

    def policy(self, timeouts: Timeouts = QUICK, **changes: object) -> Policy:
        """A policy by which all HOSTS are this server; see loopback_policy for `changes`."""
        return loopback_policy(http, **{"hosts": self.loopback(), "ca": str(self.ca), "timeouts": timeouts, **changes})

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path, in order."""
        return [seen for seen in self.seen if seen.path == path]


@dataclass
class File:
    """A file as a file server has it, and what goes wrong with it. Served by calling it."""

    data: bytes
    etag: str | None = '"one"'
    last_modified: str | None = None
    ranges: bool = True
    if_range: bool = True
    """Otherwise a request with If-Range gets the whole file, whatever stands in it."""
    bare_parts: bool = False
    """Parts come without the date, as If-Range allows (RFC 9110, 15.3.7)."""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes of the whole file's body (not of the opening's) that each connection sends before it breaks off."""
    rate: float | None = None
    """Bytes a second of each connection."""
    hang_at: int | None = None
    """Position in the file at which a connection says nothing any more."""
    sent: int = 0
    """Bytes of bodies sent in all."""
    bodies: int = 0
    """Answers that sent bytes beyond the opening."""
    at_once: int = 0
    """Most connections under way at one time."""
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> None:
        asked = request.headers
        headers = dict(self.headers)
        if self.etag:
            headers["ETag"] = self.etag
        if self.last_modified:
            headers["Last-Modified"] = self.last_modified
        if (self.etag and asked.get("If-None-Match") == self.etag) or (
                self.last_modified and asked.get("If-Modified-Since") == self.last_modified):
            request.head(304, headers)
            return
        start, end, status = 0, len(self.data), 200
        condition = asked.get("If-Range")
        if self.ranges and asked.get("Range") and (
                condition is None or (self.if_range and condition in (self.etag, self.last_modified))):
            first, _, last = asked["Range"].removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1 if last else end, end), 206
            if start >= len(self.data):
                request.answer(416, {"Content-Range": f"bytes */{len(self.data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(self.data)}"
        if self.bare_parts and condition:
            headers.pop("Last-Modified", None)
        request.head(status, {"Content-Length": str(end - start), **headers})
        with self._lock:
            self._running += 1
            self.at_once = max(self.at_once, self._running)
            self.bodies += start > 0 or status == 200
        try:
            self._send(request, start, end, opening=status == 206 and start == 0)
        finally:
            with self._lock:
                self._running -= 1

    def _send(self, request: Request, start: int, end: int, *, opening: bool) -> None:
        position, block = start, 2**14
        began = time.monotonic()
        while position < end:
            stop = min(end, position + block)
            if self.cut_after is not None and not opening:
                stop = min(stop, start + self.cut_after)
            if self.hang_at is not None:
                stop = min(stop, max(self.hang_at, position))
            if stop == position:
                if self.hang_at is not None and position >= self.hang_at:
                    request.hang()
                else:
                    request.cut()
                return
            request.wfile.write(self.data[position:stop])
            with self._lock:
                self.sent += stop - position
            position = stop
            if self.rate and not opening:
                request.server.closing.wait(max(0.0, (position - start) / self.rate - (time.monotonic() - began)))


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"", then: Route | None = None,
           times: int = 10**9) -> Route:
    """A route that answers with a status so many times, and then as another route does."""
    left = [times]

    def route(request: Request) -> None:
        left[0] -= 1
        if left[0] < 0:
            then(request)
        else:
            request.answer(code, headers, body)

    return route


def redirect(location: str, code: int = 302, headers: dict[str, str] | None = None) -> Route:
    """A route that sends elsewhere."""
    return status(code, {"Location": location, **(headers or {})})
