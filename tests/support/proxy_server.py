"""An http or https proxy on loopback that knows CONNECT alone, and keeps every byte that it sees."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress

import trustme


class ProxyServer:
    """The proxy, running until it is closed."""

    def __init__(self, places: Mapping[str, tuple[str, int]], *, login: str = "", authority: trustme.CA | None = None,
                 refusal: str = "", cut_after: int | None = None) -> None:
        """places: host:port that may be asked for -> where it is. login: name:password that it asks for. authority: of
        its own certificate, for a proxy that speaks TLS. refusal: status line in place of every tunnel. cut_after:
        bytes from the client, the TLS handshake among them, after which both sides are cut off."""
        self.places, self.login, self.refusal, self.cut_after = places, login, refusal, cut_after
        self.heads: list[str] = []
        """Requests to the proxy itself."""
        self.carried = bytearray()
        """Bytes that went through its tunnels, both ways."""
        self._context = None
        if authority is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"{'https' if self._context else 'http'}://{self.login + '@' if self.login else ''}{self.address}"

    def close(self) -> None:
        with suppress(OSError):  # on Linux a close alone does not wake the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            with client:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(1)
                self.heads.append(head.decode("latin-1"))
                place = self._place(head.decode("latin-1"))
                if isinstance(place, str):
                    client.sendall(f"HTTP/1.1 {place}\r\nContent-Length: 0\r\n\r\n".encode())
                    return
                with socket.create_connection(place) as server:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=self._carry, args=(server, client, None), daemon=True)
                    back.start()
                    self._carry(client, server, self.cut_after)
                    back.join()

    def _place(self, head: str) -> tuple[str, int] | str:
        """Return where the tunnel leads, or the status of a refusal."""
        expected = f"Proxy-Authorization: Basic {base64.b64encode(self.login.encode()).decode()}\r\n"
        if self.refusal or not head.startswith("CONNECT "):
            return self.refusal or "405 Method Not Allowed"
        if self.login and expected not in head:
            return "407 Proxy Authentication Required"
        return self.places.get(head.split()[1], "502 Bad Gateway")

    def _carry(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        with suppress(OSError):
            carried = 0
            while (data := source.recv(2**14)) and (limit is None or carried < limit):
                carried += len(data)
                self.carried += data
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_RDWR)
