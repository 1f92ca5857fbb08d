"""The one HTTPS client: connects to checked addresses, follows redirects by hand, sends a token to its owner alone.

Built on the standard library's http.client, whose body reads go straight into a given buffer. `requests` would have to
be kept from reading .netrc, from proxies, from redirects and from logging links, and adds a copy of every byte.
Proxies of the environment are not used: a proxy looks names up itself, so that nothing said here would hold.


One https connection, to an address and not to a name."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from .address import Url, check_public, parse_url
from .errors import DownloadError, TransientError
from .policy import OFFLINE_VARIABLE, Pace, Policy
from .secrets import HUGGING_FACE, Service, Tokens, service_of


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

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
AGENT = "ComfyUI-Wan22"


@dataclass
class Answer:
    """The head of an answer, and its body yet to be read. To be closed."""

    url: Url
    """Where it came from, after redirects."""
    response: http.client.HTTPResponse
    connection: Connection
    service: Service | None
    """The service asked, if it is one that has tokens."""
    token_sent: bool
    announced_sha256: str | None
    """What Hugging Face says that the file's hash is."""
    client: Client

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str | None:
        return self.response.getheader(name)

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes mean the end, of the body or of the connection. Raises TransientError."""
        try:
            return self.response.readinto(buffer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _cut(self.url, error) from None

    def read(self, limit: int) -> bytes:
        """The body, as far as `limit` bytes."""
        buffer = bytearray(limit)
        return bytes(memoryview(buffer)[:self.read_into(memoryview(buffer))])

    def close(self) -> None:
        """Give the connection back for the next request when the body was read to its end, or end it."""
        if self.response.isclosed() and not self.response.will_close:
            self.client.keep(self.url, self.connection)
        else:
            self.response.close()
            self.connection.close()

    def abort(self) -> None:
        """From another thread: make a read under way return as if the connection had broken off."""
        with suppress(OSError):  # the other side was faster
            # Not SSLSocket's own shutdown: after that one a read returns what is still to be deciphered.
            socket.socket.shutdown(self.connection.socket, socket.SHUT_RDWR)


def _cut(url: Url, error: Exception) -> TransientError:
    if isinstance(error, TimeoutError):
        return TransientError(f"{url.host} stopped sending.")
    return TransientError(f"The connection to {url.host} broke off.")


class Client:
    """Connections of one download. Its calls block; they may come from several threads."""

    def __init__(self, policy: Policy, tokens: Tokens) -> None:
        self.policy, self.tokens = policy, tokens
        self._addresses: dict[str, list[tuple[str, int]]] = {}
        self._idle: dict[str, list[Connection]] = defaultdict(list)
        self._lock = threading.Lock()

    def get(self, link: str | Url, headers: Mapping[str, str], *, with_token: bool = True) -> Answer:
        """GET, through at most five redirects, each checked like the first link.

        with_token: False for a link that a redirect led to from elsewhere; nobody's token is sent then.
        Raises DownloadError for a link, an address or a certificate that is refused, TransientError when the server
        cannot be reached or does not answer.
        """
        url = first = link if isinstance(link, Url) else parse_url(link)
        if self.policy.offline:
            raise DownloadError(f"{url} is not asked for: {OFFLINE_VARIABLE} is set. Clear it to use the network.")
        service = service_of(first.origin)
        token = self.tokens.of(service) if service and with_token else None
        announced = None
        for _ in range(MAX_REDIRECTS + 1):
            if url.origin != first.origin:
                token = None  # nor is it sent again when a later redirect leads back
            response, connection = self._ask(url, {**headers, **({"Authorization": token.header()} if token else {})})
            answer = Answer(url, response, connection, service, token is not None, announced, self)
            if response.status not in REDIRECTS:
                return answer
            answer.close()
            location = response.getheader("Location")
            if not location:
                raise DownloadError(f"{url} answers with a redirect that leads nowhere.")
            if url.origin in HUGGING_FACE.origins:
                announced = _sha256_of(response.getheader("X-Linked-Etag")) or announced
            url = parse_url(location.encode("latin-1").decode("utf-8", "replace"), url)  # as browsers read it
        raise DownloadError(f"{first} redirects more than {MAX_REDIRECTS} times. Give the link of the file itself.")

    def keep(self, url: Url, connection: Connection) -> None:
        """Use a connection again for the next request to the same origin."""
        with self._lock:
            self._idle[url.origin].append(connection)

    def close(self) -> None:
        """End the connections that nothing uses."""
        with self._lock:
            for connection in (c for idle in self._idle.values() for c in idle):
                connection.close()
            self._idle.clear()

    def _ask(self, url: Url, headers: Mapping[str, str]) -> tuple[http.client.HTTPResponse, Connection]:
        with self._lock:
            idle = self._idle[url.origin].pop() if self._idle[url.origin] else None
        if idle is not None:
            try:
                return self._exchange(idle, url, headers), idle
            except TransientError:
                pass  # it was kept for too long; a new one decides
        connection = self._connection(url)
        return self._exchange(connection, url, headers), connection

    def _exchange(self, connection: Connection, url: Url, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        try:
            connection.request("GET", url.target, headers={
                "Host": url.authority, "User-Agent": AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **headers})
            return connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise DownloadError(f"{url.host} could not prove who it is ({error.verify_message}). Nothing was fetched. "
                                "Check the link, and this machine's clock.") from None
        except (OSError, http.client.HTTPException) as error:
            connected = connection.sock is not None
            connection.close()
            if not connected:
                hint = " Proxies are not used." if any(k.lower() == "https_proxy" for k in os.environ) else ""
                raise TransientError(f"{url.host} cannot be reached or does not answer.{hint}") from None
            raise _cut(url, error) from None

    def _connection(self, url: Url) -> Connection:
        test = self.policy.loopback.get(url.authority)
        if test is not None:
            return Connection(url, [test], trust(self.policy.loopback_ca), self.policy.pace)
        with self._lock:
            known = self._addresses.get(url.origin)
        if known is None:
            found = check_public(url, self.policy.resolve(url.host, url.port))
            known = [(address, url.port) for address in found]
            with self._lock:
                known = self._addresses.setdefault(url.origin, known)
        return Connection(url, known, trust(None), self.policy.pace)


def _sha256_of(etag: str | None) -> str | None:
    """The hash in a Hub's ETag of a large file, which is its SHA-256; None for another kind of ETag."""
    value = (etag or "").strip('"').lower()
    return value if len(value) == 64 and all(c in "0123456789abcdef" for c in value) else None
