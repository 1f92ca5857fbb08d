"""Check which links may be followed and which addresses connected to: the guard against server-side request forgery.

A server that fetches what a stranger names must not be talked into reaching its own network. So a link is taken apart
once, its host resolved once, every answer checked, and the connection made to a checked answer, never to the name.
Address blocks: IANA's special-purpose registries (RFC 6890 and its successors), IPv6 embeddings by RFC 4291 (mapped),
RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from .errors import DownloadError, TransientError, UnknownHostError, redact

Address = tuple[str, int]
"""IP address and port."""
HTTPS_ONLY = ("https",)
PORTS = {"https": 443, "http": 80}
"""Scheme -> its own port."""
FIRST_FREE_PORT = 1024
"""Ports below it belong to other services (mail, SSH...), a scheme's own aside."""

_NOT_PUBLIC_4 = [ipaddress.IPv4Network(block) for block in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4")]
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")  # all that was ever given out; mapped addresses lie outside
_NOT_PUBLIC_6 = [ipaddress.IPv6Network(block) for block in (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")]  # Teredo and 6to4 among them
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


@dataclass(frozen=True)
class Url:
    """A link, taken apart: the host in lower case and ASCII, the target (path and query) as it is sent."""

    host: str
    port: int
    target: str
    scheme: str = "https"

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def text(self) -> str:
        return self.origin + self.target

    def __str__(self) -> str:
        """The link as it may be shown: without its query."""
        return self.origin + self.path


def _ascii_host(host: str, shown: str) -> str:
    """Return the host as it is looked up.

    Raises DownloadError for what is no name, among it numbers that read as addresses.

    "2130706433", "0x7f.1" and "0177.0.0.1" are all 127.0.0.1 to a resolver; a name whose last label is a number is
    none (URL standard, "ends in a number").
    """
    import idna

    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise DownloadError(f"{shown}: the host is not a valid name. Check the link.") from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise DownloadError(f"{shown}: the host is a number that stands for an address. Write the server's name.",
                                ) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise DownloadError(f"{shown}: the host is not a valid name. Check the link.")
    return host


def parse_url(text: str, base: Url | None = None, schemes: Collection[str] = HTTPS_ONLY) -> Url:
    """Take an https link apart; `base` is the page it stands on, for relative ones.

    schemes: with "http" for a server of the user's own alone, see own_server.py.

    Raises DownloadError for any other scheme, a user name or password, a port other than 443 or 1024..65535, and a
    host that is no name and no plain address.
    """
    text = text.strip()
    shown = redact(text)
    if any(ord(c) < 32 or ord(c) == 127 for c in text) or "\\" in text:
        raise DownloadError(f"{''.join(c for c in shown if c.isprintable())}: the link holds a character that no link "
                            "may hold. Copy it again.")
    try:
        parts = urlsplit(urljoin(base.text, text) if base else text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise DownloadError(f"{shown} is not a valid link. Copy it again.") from None
    if parts.scheme not in schemes:
        raise DownloadError(f"{shown}: only https links are followed"
                            f"{f', not {parts.scheme}' if parts.scheme else ''}.")
    if "@" in parts.netloc:
        raise DownloadError(f"{shown}: the link holds a user name or a password, which would be saved with the "
                            "workflow. Take it out.")
    usual = PORTS[parts.scheme]
    if port is None:
        port = usual
    if port != usual and port < FIRST_FREE_PORT:
        raise DownloadError(f"{shown}: port {port} is not used for downloads; {usual} and 1024 to 65535 are.")
    if ":" in host:
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise DownloadError(f"{shown}: the host is not a valid address. Check the link.") from None
    elif host:
        host = _ascii_host(host, shown)
    else:
        raise DownloadError(f"{shown} names no server. Copy the link again.")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
        "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?[]") if parts.query else "")
    return Url(host, port, target, parts.scheme)


def is_public(address: str) -> bool:
    """Return whether an IP address is one that anybody on the internet may reach; False for what is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.version == 6 and ip in _NAT64:  # how a network without IPv4 reaches it; what counts is inside
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.version == 4:
        return not any(ip in block for block in _NOT_PUBLIC_4)
    return ip in _PUBLIC_6 and not any(ip in block for block in _NOT_PUBLIC_6)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def may_be_public(host: str) -> bool:
    """Return whether a host can be on the public internet, as far as its name tells.

    That is a public address, or a name with a domain that is not kept for local networks (RFC 6761, 6762, 8375, 9476).
    """
    if is_address(host):
        return is_public(host)
    return "." in host and not host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, best first. Blocks; raises TransientError when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise TransientError(f"{host} could not be looked up just now. Is this machine online?") from None
        raise UnknownHostError(f"There is no server named {host}, or this machine is not online.") from None
    except (UnicodeError, OSError):
        raise UnknownHostError(f"{host} could not be looked up. Check the link.") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def public_addresses(url: Url, resolve: Callable[[str, int], list[str]] = resolve) -> list[Address]:
    """Look a link's host up and return where to connect. Raises DownloadError unless every address is public."""
    addresses = [url.host] if is_address(url.host) else resolve(url.host, url.port)
    if not addresses:
        raise UnknownHostError(f"There is no server named {url.host}, or this machine is not online.")
    for address in addresses:
        if not is_public(address):
            raise DownloadError(f"{url} is refused: {url.host} is not on the public internet, but an address of this "
                                "machine or its network. Fetch the file yourself.")
    return [(address, url.port) for address in addresses]
