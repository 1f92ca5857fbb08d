"""One https connection, to an address and not to a name."""

from __future__ import annotations

import http.client
import socket
import ssl
from functools import cache

from .address import Url
from .policy import Pace


@cache
def trust(authorities: str | None) -> ssl.SSLContext:
    """Whom to believe: the authorities of a file, or those of the system (SSL_CERT_FILE included) and of certifi."""
    context = ssl.create_default_context(cafile=authorities)
    if authorities is None:
        import certifi

        context.load_verify_locations(certifi.where())
    return context


class Connection(http.client.HTTPSConnection):
    """A connection to one of the checked addresses; the certificate is checked for the host's name.

    The list of addresses is shared: the one that answered is tried first the next time.
    """

    def __init__(self, url: Url, addresses: list[tuple[str, int]], context: ssl.SSLContext, pace: Pace) -> None:
        super().__init__(url.host, url.port, context=context, timeout=pace.connect)
        self._addresses, self._tls, self._pace = addresses, context, pace
        self.socket: ssl.SSLSocket | None = None
        """Stays when http.client has handed the socket over to the answer."""

    def connect(self) -> None:
        for address in tuple(self._addresses):
            try:
                plain = socket.create_connection(address, self._pace.connect)
                self._addresses.sort(key=lambda known: known != address)
                break
            except OSError as error:
                failed = error
        else:
            raise failed
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self.socket = self._tls.wrap_socket(plain, server_hostname=self.host)
            self.sock.settimeout(self._pace.read)
        except BaseException:
            plain.close()
            raise
