"""A threaded https server on a loopback port that stands for real hosts, keeps what it was asked, and can fail.

`ProviderServer` and `CdnServer` are built on it. A request finds its `Route`; the route's `point` names the places at
which `LoopbackServer.fail` puts faults (see faults.py). Everything that no client should ever do is kept in
`violations`, which a test asserts to be empty.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import ssl
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import trustme

from tests.support.exchange import Answer, Fault, Refused, Request, Route, Seen, json_answer

STATE_PATH = "/__test__/state"


class TlsServer(ThreadingHTTPServer):
    request_queue_size = 256

    def __init__(self, context: ssl.SSLContext, owner: LoopbackServer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.context, self.owner = context, owner
        self.closing = threading.Event()
        self.connections: dict[threading.Thread, socket.socket] = {}

    def get_request(self) -> tuple[ssl.SSLSocket, object]:
        plain, address = super().get_request()  # the handshake waits for the thread of the connection
        return self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def finish_request(self, request: socket.socket, client_address: object) -> None:
        self.connections[threading.current_thread()] = request
        try:
            if not self.closing.is_set():
                super().finish_request(request, client_address)
        finally:
            del self.connections[threading.current_thread()]

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what these tests are about; whatever else happens is this server's own fault."""
        if not isinstance(sys.exc_info()[1], OSError):
            self.owner.violations.append(traceback.format_exc())

    def end(self) -> None:
        self.closing.set()
        self.shutdown()
        for thread, connection in list(self.connections.items()):
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            thread.join()
        self.server_close()


@functools.cache
def authority() -> trustme.CA:
    """The authority of all servers of this process, so that one CA file is enough for a client of several."""
    return trustme.CA(organization_name="Loopback providers")


@functools.cache
def _context(hosts: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*hosts).configure_cert(context)
    return context


class LoopbackServer:
    """The server, running until `close()`. It serves `hosts` and nothing else."""

    routes: list[Route]
    points: tuple[str, ...]
    """Where faults can be put."""

    def __init__(self, folder: Path, hosts: tuple[str, ...]) -> None:
        """folder: gets authority.pem, the CA that signed the certificate of these host names."""
        self.hosts = hosts
        self.ca = folder / "authority.pem"
        authority().cert_pem.write_to_path(self.ca)
        self.lock = threading.RLock()
        self.seen: list[Seen] = []
        self.violations: list[str] = []
        self._faults: list[_Planned] = []
        self._server = TlsServer(_context(hosts), self)
        self.closing = self._server.closing
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End every connection and wait for every thread."""
        self._server.end()
        self._thread.join()

    def loopback(self) -> dict[str, tuple[str, int]]:
        """host -> address and port, as `Policy.loopback` takes it; `Policy.loopback_ca` is `str(self.ca)`."""
        return dict.fromkeys(self.hosts, ("127.0.0.1", self.port))

    def fail(self, point: str, fault: Fault, *, times: int = 1, skip: int = 0) -> None:
        """Put a fault at a point: after `skip` requests there, the next `times` requests meet it.

        Faults of one point wait for one another in the order in which they were put.
        """
        if point not in self.points:
            raise ValueError(f"{type(self).__name__} has no point {point!r}, only {', '.join(self.points)}.")
        with self.lock:
            self._faults.append(_Planned(point, fault, times, skip))

    def asked(self, point: str) -> list[Seen]:
        """The requests at a point, in order, whatever they were answered."""
        with self.lock:
            return [seen for seen in self.seen if seen.point == point]

    def state(self) -> dict[str, object]:
        """What STATE_PATH answers: counts that a test compares, as JSON."""
        with self.lock:
            return {"requests": Counter(seen.point or "unknown" for seen in self.seen),
                    "statuses": Counter(str(seen.status) for seen in self.seen), "violations": self.violations}

    def unknown(self, request: Request) -> Answer:
        """For a path, or a method on it, that nothing is at."""
        raise NotImplementedError

    def authorise(self, request: Request) -> None:
        """Raises Refused when the request may not have the route, which asks for a key."""

    def serve(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        if path == STATE_PATH:
            with self.lock:
                answer = json_answer(200, self.state())
            request.answer(answer.status, answer.headers, answer.body)
            return
        raw = request.read_body()
        headers = {name.lower(): value for name, value in request.headers.items()}
        host = headers.get("host", "").removesuffix(":443")
        seen = request.seen = Seen(time.monotonic(), host, request.command, path,
                                   dict(parse_qsl(query, keep_blank_values=True)), headers, _json(raw), raw or b"")
        with self.lock:
            self.seen.append(seen)
        if raw is None:
            request.close_connection = True
            request.send(Answer(413, b"The body has no length, is too long or broke off."))
            return
        if host not in self.hosts:
            self.violations.append(f"{request.command} {request.path} was asked of {host!r}, which is not served here.")
            request.send(Answer(421, b"Misdirected Request"))
            return
        route, values = self._route(seen)
        work = functools.partial(self._work, request, route, values)
        fault = self._next_fault(seen.point)
        if fault:
            fault(request, work)
        else:
            request.send(work())

    def _route(self, seen: Seen) -> tuple[Route | None, dict[str, str]]:
        for route in self.routes:
            match = re.fullmatch(route.pattern, seen.path)
            if match and (route.method, route.host) == (seen.method, seen.host):
                seen.point = route.point
                return route, match.groupdict()
        return None, {}

    def _next_fault(self, point: str | None) -> Fault | None:
        with self.lock:
            for planned in (f for f in self._faults if f.point == point and (f.times or f.skip)):
                if planned.skip:
                    planned.skip -= 1
                    return None
                planned.times -= 1
                return planned.fault
        return None

    def _work(self, request: Request, route: Route | None, values: dict[str, str]) -> Answer:
        with self.lock:
            try:
                if route is None:
                    return self.unknown(request)
                if not route.open:
                    self.authorise(request)
                return route.function(request, **values)
            except Refused as refused:
                return refused.answer
            except Exception:
                self.violations.append(traceback.format_exc())
                return Answer(500, b"The test's server has a bug; see its violations.")


@dataclass
class _Planned:
    point: str
    fault: Fault
    times: int
    skip: int


def _json(raw: bytes | None) -> object:
    try:
        return json.loads(raw or b"")
    except ValueError:
        return None


def environment(*servers: LoopbackServer) -> str:
    """The value of WAN22_TEST_LOOPBACK by which a process of its own finds these servers."""
    hosts = {host: f"{address}:{port}" for server in servers for host, (address, port) in server.loopback().items()}
    return json.dumps({"ca": str(servers[0].ca), "hosts": hosts})
