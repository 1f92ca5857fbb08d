"""A server of the user's own, such as the machine with the GPU next door: the one gap in the guard of address.py.

The settings name its address. That origin alone may be on a private network and be asked by plain http; everything
else, a redirect or a link of that server's included, is checked as ever. Its name is looked up and checked anew for
each session, and the connection made to the checked address, so that a name that leads elsewhere later (DNS
rebinding) leads nowhere.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from .address import PORTS, Address, Url, is_address, is_public, may_be_public, parse_url, resolve
from .errors import DownloadError, UnknownHostError
from .policy import Policy

EXAMPLE = "http://192.168.1.20:8188"
_LOOPBACK = [ipaddress.ip_network(block) for block in ("127.0.0.0/8", "::1/128")]
_PRIVATE = [ipaddress.ip_network(block) for block in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")]
"""RFC 1918, shared addresses as Tailscale and other overlays use them (RFC 6598), and unique local ones (RFC 4193)."""
_METADATA = [ipaddress.ip_address(address) for address in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")]
"""Where clouds give a machine's credentials out, inside those blocks; 169.254.169.254 is outside."""


def parse_own_server(text: str) -> Url:
    """Take the address of a server of one's own apart: http or https, a host, perhaps a port and a path.

    Raises DownloadError for what is no such address, and for an IP address that may not be asked so.
    """
    if "://" not in text:
        raise DownloadError(f"{text.strip()[:80]!r} is not an address. Write it as in {EXAMPLE}.")
    url = parse_url(text, schemes=PORTS)
    if "?" in text or "#" in text:
        raise DownloadError(f"{url} has a ? or a #. Give the part before it.")
    if is_address(url.host):
        own_addresses(url)
    return replace(url, target=url.target.rstrip("/"))


def own_addresses(url: Url, resolve: Callable[[str, int], list[str]] = resolve) -> list[Address]:
    """Look the own server up and return where to connect. Raises DownloadError unless every address may be asked."""
    found = [url.host] if is_address(url.host) else resolve(url.host, url.port)
    if not found:
        raise UnknownHostError(f"There is no server named {url.host}, or this machine is not online.")
    for address in found:
        if why := _fault(address, url):
            raise DownloadError(f"{url.origin} is refused: {why}")
    return [(address, url.port) for address in found]


def _fault(address: str, url: Url) -> str:
    """Return a sentence when the own server may not be asked at an address, else an empty string."""
    if is_public(address):
        return "" if url.scheme == "https" else (
            f"{address} is on the public internet, where plain http shows the key to everybody. Use https.")
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return f"it leads to {address}, which is no address."
    if any(ip in block for block in _LOOPBACK):
        return "" if is_address(url.host) or url.host == "localhost" else (
            f"its name leads to {address}, which is this machine. Write the address itself if you mean that.")
    if ip in _METADATA or not any(ip in block for block in _PRIVATE):
        return f"it leads to {address}, where no server of your network is. Correct the address in the settings."
    return ""


def with_own_server(policy: Policy, own: Url, resolve: Callable[[str, int], list[str]] = resolve) -> Policy:
    """Return a policy that lets the one origin through; no proxy stands before it, unless its name can be public."""
    direct = own.scheme == "http" or not may_be_public(own.host)

    def addresses(url: Url) -> list[Address]:
        return own_addresses(url, resolve) if url.origin == own.origin else policy.addresses(url)

    def proxy(url: Url) -> str | None:
        return None if direct and url.origin == own.origin else policy.proxy(url)

    return replace(policy, own_server=own, addresses=addresses, proxy=proxy)
