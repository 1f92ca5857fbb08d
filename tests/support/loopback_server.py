"""An https server (or a plain http one) on a loopback port that stands for real hosts and keeps what it is asked.

`HostileServer` (files, and what a server may do to them) and `ApiServer` (APIs whose requests can fail) build on it.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import trustme

LARGEST_BODY = 64 * 2**20
"""Bytes of a request that are read; more gets 413."""


@dataclass
class Seen:
    """A request as it came, and the status of its answer."""

    at: float
    """Seconds of time.monotonic()."""
    host: str
    """As the client named it."""
    method: str
    target: str
    """Path and query, percent-encoded."""
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes
    """The body."""
    point: str | None = None
    """The point of its route (submit, poll, ...), at an ApiServer; None when no route takes it."""
    status: int | None = None
    """None while there is no answer, and when a fault left it without one."""
    answer: bytes = b""
    """The body of an answer that was sent whole."""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @functools.cached_property
    def body(self) -> object:
        """The JSON of the body; None when it is none."""
        with suppress(ValueError):
            return json.loads(self.raw)
        return None


class Request(BaseHTTPRequestHandler):
    """A request being answered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    seen: Seen

    def do_GET(self) -> None:
        raw, owner = self.read_body(), self.server.owner
        target = self.requestline.split()[1]  # `path` has lost a double slash at its start
        self.seen = Seen(time.monotonic(), self.headers.get("Host", ""), self.command, target,
                         {name.lower(): value for name, value in self.headers.items()}, raw or b"")
        with owner.lock:
            owner.seen.append(self.seen)
        if raw is None:
            self.close_connection = True
            self.answer(413, body=b"The body has no length, is too long or broke off.")
        else:
            owner.serve(self)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815

    def read_body(self) -> bytes | None:
        """Return the body; None when it does not come whole, is too long or has no length (as for S3's links)."""
        if "Transfer-Encoding" in self.headers:
            return None
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length <= LARGEST_BODY else b""
        return body if len(body) == length else None

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Send the status and headers."""
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Send a whole answer."""
        self.seen.answer = body
        self.head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def cut(self) -> None:
        """Break the connection off."""
        self.close_connection = True
        self.connection.close()

    def reset(self) -> None:
        """End the connection with a TCP reset, at once."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def hang(self) -> None:
        """Keep the connection and say nothing until the server is closed."""
        self.server.closing.wait()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    request_queue_size = 256

    def __init__(self, context: ssl.SSLContext | None, owner: LoopbackServer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.context, self.owner = context, owner
        self.closing = threading.Event()
        self.connections: dict[threading.Thread, socket.socket] = {}

    def get_request(self) -> tuple[socket.socket, object]:
        plain, address = super().get_request()
        if self.context is None:
            return plain, address
        # The handshake waits for the thread of the connection.
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


AUTHORITY = trustme.CA(organization_name="Loopback servers")
"""Of all servers of this process, so that one CA file is enough for a client of several."""


@functools.cache
def _context(authority: trustme.CA, hosts: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


class LoopbackServer:
    """The server, running until `close()`. It serves `hosts` and nothing else."""

    tls = True

    def __init__(self, folder: Path, hosts: tuple[str, ...], authority: trustme.CA = AUTHORITY) -> None:
        """folder: gets authority.pem, the CA that signed the certificate of these host names."""
        self.hosts = hosts
        self.ca = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.lock = threading.RLock()
        self.seen: list[Seen] = []
        self.violations: list[str] = []
        """Acts that no client should ever do, and this server's own mistakes; for tests to assert empty."""
        self._server = Listener(_context(authority, hosts) if self.tls else None, self)
        self.closing = self._server.closing
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    def serve(self, request: Request) -> None:
        """Answer a request whose body has come whole."""
        raise NotImplementedError

    def close(self) -> None:
        """End every connection and wait for every thread."""
        self._server.end()
        self._thread.join()

    def loopback(self) -> dict[str, tuple[str, int]]:
        """host -> address and port, as `loopback_policy` takes it; its `ca` is `str(self.ca)`."""
        return dict.fromkeys(self.hosts, ("127.0.0.1", self.port))

    def environment(self, *others: LoopbackServer) -> str:
        """Return what loopback.VARIABLE holds for a process of its own that is to find this server and others."""
        hosts = {host: f"{address}:{port}" for server in (self, *others)
                 for host, (address, port) in server.loopback().items()}
        return json.dumps({"ca": str(self.ca), "hosts": hosts})
