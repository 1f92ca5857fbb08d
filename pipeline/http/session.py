"""Make HTTPS requests, on requests: follow redirects by hand, and send a token to its owner alone.

Every connection, redirects included, is made by connection.py. Nothing of requests' own settings is read: no .netrc, no
cookies, no environment but what environment.py takes from it; plain http is mounted for the user's own server alone; no
link is logged.
"""

from __future__ import annotations

import http.client
import io
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path

import requests
import urllib3

from ..files.names import read_sha256
from .address import Url
from .connection import Adapter, Dialer
from .environment import is_socks
from .errors import ConnectionLostError, DownloadError
from .policy import OFFLINE_VARIABLE, Policy
from .secrets import HUGGING_FACE, NoTokens, Service, Tokens, service_of

MAX_REDIRECTS = 5
PIECE = 2**18
"""Bytes of a body that are sent at a time."""
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "ComfyUI-Wan22", "Accept": "*/*", "Accept-Encoding": "identity"}
_TROUBLE = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
_ours = threading.local()


class Body:
    """Bytes or a file to be sent, and when the last byte leaves: until then no server can have accepted the request."""

    def __init__(self, data: bytes | Path, before_last_byte: Callable[[], None]) -> None:
        """data: at least one byte, or a file of that length, which is read piece by piece.

        before_last_byte: called when all but the last byte is on its way; what it raises ends the request.
        """
        self._data, self._before_last_byte = data, before_last_byte
        self._size = len(data) if isinstance(data, bytes) else data.stat().st_size
        self.sent = False
        """True when the last byte may have left."""

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        with io.BytesIO(self._data) if isinstance(self._data, bytes) else self._data.open("rb") as file:
            left = self._size - 1
            while left > 0 and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece
            self._before_last_byte()
            self.sent = True
            yield file.read(1)


@dataclass
class Response:
    """The head of a response, and its body yet to be read. To be closed."""

    url: Url
    """Its address, after redirects."""
    raw: urllib3.HTTPResponse
    session: Session
    service: Service | None = None
    """The service asked, if it is one that has tokens."""
    token_sent: bool = False
    untrusted_mirror: Url | None = None
    """The mirror that was asked in place of Hugging Face, if it is not trusted with a token."""
    announced_sha256: str | None = None
    """The file's hash as Hugging Face, or its mirror, announces it."""

    @property
    def status(self) -> int:
        return self.raw.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.raw.headers

    def header(self, name: str) -> str | None:
        return self.raw.headers.get(name)

    @property
    def length(self) -> int | None:
        """Bytes of the body that are still to be read; None when the server does not say."""
        return self.raw.length_remaining

    @property
    def ends_by_itself(self) -> bool:
        """True when the end of the body can be told from a cut."""
        return self.raw.chunked or self.length is not None

    @property
    def is_whole(self) -> bool:
        """True when the body was read to its end."""
        return self.raw.isclosed()

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer; fewer bytes mean the end, of the body or of the connection.

        Raises ConnectionLostError.
        """
        with _lost_from(self.url), suppress(ValueError):  # closed meanwhile, by another thread
            # raw's own readinto copies every byte once more, 8 % of the processor's time of a download.
            return getattr(self.raw, "_fp", self.raw).readinto(buffer)
        return 0

    def read(self, limit: int) -> bytes:
        """Return the body, as far as `limit` bytes. Raises ConnectionLostError."""
        with _lost_from(self.url):
            return self.raw.read(limit)

    def close(self) -> None:
        """Give the connection back for the next request when the body was read to its end, or end it."""
        if self.raw.isclosed():
            self.raw.release_conn()
        else:
            self.raw.close()


class Session:
    """Connections of one download or one exchange. Its calls block; they may come from several threads."""

    def __init__(self, policy: Policy, tokens: Tokens = NoTokens()) -> None:  # noqa: B008
        self.policy, self.tokens = policy, tokens
        self._dialer = Dialer(policy)
        self._requests = _Requests()
        self._requests.mount("https://", Adapter(self._dialer))
        own = policy.own_server
        if own is not None and own.scheme == "http":
            self._requests.mount(f"{own.origin}/", Adapter(self._dialer))

    def get(self, link: str | Url, headers: Mapping[str, str], *, with_token: bool = True) -> Response:
        """GET, through at most five redirects, each checked like the first link; those of the own server stay on it.

        with_token: False for a link that a redirect led to from elsewhere; nobody's token is sent then.
        Raises DownloadError for a link, an address or a certificate that is refused, TransientError when the server
        cannot be reached or does not answer.
        """
        asked = link if isinstance(link, Url) else self.policy.parse(link)
        mirror = self._mirror(asked)
        url = first = asked if mirror is None or asked.origin == mirror.origin else _on_mirror(asked, mirror)
        service = service_of(asked.origin) if mirror is None else HUGGING_FACE
        untrusted = mirror if mirror is not None and not self.tokens.trusts(mirror) else None
        token = self.tokens.of(service) if service and with_token and untrusted is None else None
        announced = None
        for _ in range(MAX_REDIRECTS + 1):
            if url.origin != first.origin:
                token = None  # nor is it sent again when a later redirect leads back
            sent = {"Authorization": token.header()} if token else {}
            response = replace(self.send("GET", url, {**headers, **sent}), service=service, untrusted_mirror=untrusted,
                               token_sent=token is not None, announced_sha256=announced)
            if response.status not in REDIRECTS:
                return response
            response.close()
            location = response.header("Location")
            if not location:
                raise DownloadError(f"{url} answers with a redirect that leads nowhere.")
            if url.origin in HUGGING_FACE.origins or (mirror is not None and url.origin == mirror.origin):
                announced = _sha256_of(response.header("X-Linked-Etag")) or announced
            url = self.policy.parse(location.encode("latin-1").decode("utf-8", "replace"), url)  # as browsers read it
            if self.policy.own_server is not None and url.origin != first.origin:
                raise DownloadError(f"{first} redirects to {url.origin}, which is another server. That is not "
                                    "followed.")
        raise DownloadError(f"{first} redirects more than {MAX_REDIRECTS} times. Give the link of the file itself.")

    def _mirror(self, url: Url) -> Url | None:
        """Return the mirror of Hugging Face when a link is of the one or the other. Raises DownloadError."""
        if url.origin in HUGGING_FACE.origins:
            return self.policy.mirror()
        with suppress(DownloadError):  # of a setting that this link has nothing to do with
            mirror = self.policy.mirror()
            return mirror if mirror is not None and url.origin == mirror.origin else None
        return None

    def send(self, method: str, url: Url, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """Make one request, once, and return its response; no redirect is followed.

        Raises ConnectionLostError when there was a connection and it broke off; before that, when nothing was sent,
        DownloadError for what is refused and another TransientError for a server that cannot be reached.
        """
        if self.policy.offline:
            raise DownloadError(f"{url} is not asked for: {OFFLINE_VARIABLE} is set. Clear it to use the network.")
        proxy = self._dialer.route(url).proxy
        request = requests.Request(method, url.text, {**HEADERS, "Host": url.authority, **headers}, data=body).prepare()
        request.url = url.text  # requests would quote it anew, and a signature may depend on that
        timeouts = self.policy.timeouts
        with _lost_from(url), _unlogged():
            response = self._requests.send(
                request, stream=True, allow_redirects=False, timeout=(timeouts.connect, timeouts.read),
                proxies={"https": proxy} if proxy and not is_socks(proxy) else {})
        return Response(url, response.raw, self)

    def abort(self) -> None:
        """Make every call under way, and every later one, fail as if its connection had broken off; from any thread.

        Whoever tries again does so with a new session.
        """
        self._dialer.abort()

    def close(self) -> None:
        """End the connections that nothing uses."""
        self._requests.close()


class _Requests(requests.Session):
    """A session without adapters for plain http, without cookies and without redirects of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.adapters.clear()
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


@contextmanager
def _lost_from(url: Url) -> Iterator[None]:
    """Raise ConnectionLostError for what requests, urllib3 and the socket raise once there was a connection."""
    try:
        yield
    except DownloadError:
        raise
    except _TROUBLE as error:
        if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
            raise ConnectionLostError(f"{url.host} stopped sending.") from None
        raise ConnectionLostError(f"The connection to {url.host} broke off.") from None


class _NotOurs(logging.Filter):
    """Keep urllib3 from logging our links, which may be secret, and leave other users' log lines alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_ours, "sending", False)


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_NotOurs())


@contextmanager
def _unlogged() -> Iterator[None]:
    _ours.sending = True
    try:
        yield
    finally:
        _ours.sending = False


def _on_mirror(url: Url, mirror: Url) -> Url:
    """Return a link of Hugging Face as it is on a mirror, which may have a path of its own."""
    return Url(mirror.host, mirror.port, mirror.target.rstrip("/") + url.target)


def _sha256_of(etag: str | None) -> str | None:
    """Return the hash in a Hub's ETag of a large file, which is its SHA-256; None for another kind of ETag."""
    return read_sha256((etag or "").strip('"'))
