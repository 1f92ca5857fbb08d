"""Connect: to addresses that were checked, never to a name that could change its mind; or through the user's proxy.

requests and urllib3 make the connections; this is the one place where a socket is opened. `_new_conn` is urllib3's own
door for that (its SOCKS support goes through it too: urllib3/contrib/socks.py).
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import weakref
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from .address import PORTS, Address, Url, may_be_public
from .environment import shown_proxy
from .errors import DownloadError, TransientError
from .policy import Policy
from .threads import begin

IDLE = 16
"""Connections to one origin that are kept for the next request."""
LOOK_UP = 5.0
"""Seconds for looking up a host that a proxy will look up itself: behind one there is often no other way."""
UNANSWERED = 600.0
"""Seconds for which a host is not looked up again after that."""
_unanswered: dict[str, float] = {}
"""Host whose look-up took too long -> when to try again, by the monotonic clock."""
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (\d{3})")


@dataclass(frozen=True)
class Route:
    """The way to an origin."""

    addresses: list[Address]
    """Checked, the one that answered last first; shared by the connections. May be empty behind a proxy."""
    proxy: str | None
    """URL of the proxy, with its name and password."""


class Dialer:
    """Open the connections of a session, and end them from any thread."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.aborted = False
        self._routes: dict[str, Route] = {}
        self._connections: weakref.WeakSet[_Pinned] = weakref.WeakSet()
        self._lock = threading.Lock()

    def route(self, url: Url) -> Route:
        """Return the way to a link's host, which stays the same for the session.

        Raises DownloadError for a host that is not on the public internet. A host that cannot be looked up here is let
        pass when a proxy looks it up.
        """
        with self._lock:
            known = self._routes.get(url.origin)
        if known is not None:
            return known
        proxy = self.policy.proxy(url)
        addresses = self.policy.addresses(url) if proxy is None else self._addresses_behind_proxy(url)
        with self._lock:
            return self._routes.setdefault(url.origin, Route(addresses, proxy))

    def _addresses_behind_proxy(self, url: Url) -> list[Address]:
        """Return the addresses as far as they can be looked up here in time; [] when not.

        Raises DownloadError for addresses that are not public, and for a name that only a local network has: the proxy
        would look it up in its own.
        """
        if not may_be_public(url.host):
            return self.policy.addresses(url)
        if time.monotonic() < _unanswered.get(url.host, 0.0):
            return []
        try:
            return begin(lambda: self.policy.addresses(url)).result(LOOK_UP)
        except TransientError:
            return []
        except futures.TimeoutError:
            _unanswered[url.host] = time.monotonic() + UNANSWERED
            return []

    def add(self, connection: _Pinned) -> None:
        """Take in a connection that `abort` is to end."""
        connection.dialer = self
        with self._lock:
            self._connections.add(connection)

    def dial(self, connection: _Pinned) -> socket.socket:
        """Open the socket to the far end; the address that answers is tried first the next time. Raises OSError."""
        with self._lock:
            route = self._routes[connection.origin.origin]
        if route.proxy is not None:  # an http proxy is dialled by urllib3
            return _through_socks(route.proxy, connection.origin, self.policy.timeouts.connect)
        failed: OSError = ConnectionAbortedError()
        for address in tuple(route.addresses):
            if self.aborted:
                break
            try:
                plain = socket.create_connection(address, self.policy.timeouts.connect)
            except OSError as error:
                failed = error
                continue
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            route.addresses.sort(key=lambda known: known != address)
            return plain
        raise failed

    def abort(self) -> None:
        """Make everything that waits on a connection return as if that had broken off, and open no further one."""
        self.aborted = True
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.abort()


def _through_socks(proxy: str, url: Url, timeout: float) -> socket.socket:
    """Open a socket to a host through a SOCKS proxy, which looks the host up. Raises OSError."""
    import socks

    parts = urlsplit(proxy)
    kind = socks.SOCKS4 if parts.scheme.lower().startswith("socks4") else socks.SOCKS5
    return socks.create_connection(
        (url.host, url.port), timeout, proxy_type=kind, proxy_addr=parts.hostname, proxy_port=parts.port,
        proxy_rdns=True, proxy_username=unquote(parts.username or "") or None,
        proxy_password=unquote(parts.password or "") or None)


class _Pinned(HTTPConnection):
    """A connection to a pinned address, or through a proxy."""

    dialer: Dialer
    scheme: str
    _open: Any = None
    """The socket, kept when http.client has handed it over to the response."""

    @property
    def origin(self) -> Url:
        """The far end, behind the proxy if there is one."""
        host, port = (self._tunnel_host, self._tunnel_port) if self._tunnel_host else (self.host, self.port)
        return Url(str(host).strip("[]"), int(port), "/", self.scheme)

    def _new_conn(self) -> socket.socket:
        return self.dialer.dial(self) if self.proxy is None else super()._new_conn()

    def connect(self) -> None:
        """Connect. Raises TransientError, or DownloadError for a certificate or a proxy that refuses."""
        origin = self.origin
        try:
            super().connect()
        except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            refusal = self._refusal(origin.host, self.dialer.route(origin).proxy, error)
            self.close()
            raise refusal from None
        self._open = self.sock
        self.sock.settimeout(self.dialer.policy.timeouts.read)
        if self.dialer.aborted:
            self.abort()

    def abort(self) -> None:
        """Make a send or a read under way return; from another thread."""
        plain = getattr(self._open, "socket", self._open)  # TLS inside TLS, to a proxy that speaks it, has a socket
        with suppress(OSError):  # the other side was faster
            if plain is not None:
                # Not SSLSocket's own shutdown: after that one a read returns what is still to be deciphered.
                socket.socket.shutdown(plain, socket.SHUT_RDWR)

    def _refusal(self, host: str, proxy: str | None, error: Exception) -> DownloadError:
        proxy = proxy and shown_proxy(proxy)
        if isinstance(error, ssl.SSLCertVerificationError):
            at_proxy = self.proxy is not None and self.proxy.scheme == "https" and not self.proxy_is_verified
            return DownloadError(
                f"{f'The proxy {proxy}' if at_proxy else host} could not prove who it is ({error.verify_message}). "
                "Check the link, and this machine's clock. Where a company's own authority signs certificates, set "
                "REQUESTS_CA_BUNDLE or SSL_CERT_FILE to a file with its certificate (PEM).")
        if proxy is None:
            return TransientError(f"{host} cannot be reached or does not answer.")
        refused = _TUNNEL_REFUSED.search(str(error))
        if refused is None:
            return TransientError(f"The proxy {proxy} cannot be reached, or breaks off. Check HTTPS_PROXY, or list "
                                    f"{host} in NO_PROXY.")
        status = int(refused[1])
        if status == 407:
            return DownloadError(f"The proxy {proxy} asks for a name and a password (status 407). Give them in "
                                 "HTTPS_PROXY, as in http://name:password@proxy.example:3128.")
        if status >= 500:
            return TransientError(f"The proxy {proxy} does not reach {host} (status {status}).")
        return DownloadError(f"The proxy {proxy} allows no connection to {host} (status {status}). Ask who runs it, or "
                             "list the host in NO_PROXY.")


class Connection(_Pinned, HTTPSConnection):
    """A connection whose certificate is checked for the host's name."""

    scheme = "https"


class PlainConnection(_Pinned):
    """A connection to the user's own server without TLS."""

    scheme = "http"


class _Pool(HTTPConnectionPool):
    """urllib3's connections to one origin, each known to the session's dialer."""

    dialer: Dialer

    def _new_conn(self) -> _Pinned:
        connection = super()._new_conn()
        self.dialer.add(connection)
        return connection


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = Connection


class _PlainPool(_Pool):
    ConnectionCls = PlainConnection


class Adapter(HTTPAdapter):
    """requests' way to the connections of a dialer. Never repeats a request."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        super().__init__(pool_maxsize=IDLE, max_retries=0)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Return the pool of a request's origin."""
        parts, proxy = urlsplit(request.url), (proxies or {}).get("https")
        host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
        manager = self.poolmanager
        if proxy is not None:
            to_proxy = self._dialer.policy.context(shown_proxy(proxy))
            manager = self.proxy_manager_for(proxy, proxy_ssl_context=to_proxy)
        manager.pool_classes_by_scheme = {"https": _TlsPool, "http": _PlainPool}
        if parts.scheme == "https":
            context = self._dialer.policy.context(Url(host, port, "/").authority)
            pool = manager.connection_from_host(host, port, "https", {"ssl_context": context})
        else:
            pool = manager.connection_from_host(host, port, "http")
        pool.dialer = self._dialer
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return the path and query that are asked for; requests 2.32 takes a double slash away."""
        return "/" + request.url.partition("://")[2].partition("/")[2]

    def cert_verify(self, *_: Any) -> None:
        """Leave certificates to the pool's TLS context."""
