"""A websocket client that can listen to ComfyUI."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator


class WebSocket:
    """As much of RFC 6455 as it takes to listen to ComfyUI: reads text messages, skips binary ones (previews)."""

    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self, port: int, path: str) -> None:
        # The timeout is short because on Windows Ctrl-C is only seen between two calls.
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=1)
        self._received = bytearray()
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._take(1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            self.close()
            raise ConnectionError(f"no websocket at {path}")

    def close(self) -> None:
        self._socket.close()

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("the connection was closed")
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def texts(self) -> Iterator[str]:
        """Yield every text message, fragments joined, until the server closes."""
        message, is_text = bytearray(), False
        while True:
            first, second = self._take(2)
            final, opcode, length = first & 0x80, first & 0x0F, second & 0x7F
            if length > 125:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            payload = self._take(length)
            if opcode == self.CLOSE:
                return
            if opcode == self.PING:  # the protocol wants an answer, masked; a mask of zeros leaves it as it is
                self._socket.sendall(bytes([0x80 | self.PONG, 0x80 | length]) + bytes(4) + payload)
            elif opcode != self.PONG:
                if opcode:  # zero continues the message before
                    message, is_text = bytearray(), opcode == self.TEXT
                message += payload
                if final and is_text:
                    yield message.decode()
