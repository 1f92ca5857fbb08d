"""Settle how far a download or a remote job may go: its timeouts and retries, and which addresses it may reach."""

from __future__ import annotations

import email.utils
import os
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .address import PORTS, Address, Url, parse_url, public_addresses
from .environment import HUB, environment_proxy, hub_mirror, shown_proxy, trusted_authorities
from .errors import DownloadError

OFFLINE_VARIABLE = "WAN22_OFFLINE"
SLOWEST = 100_000
"""Bytes a second that a small answer is expected to come with."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds, bytes and counts after which a download changes its mind."""

    connect: float = 10.0
    """Seconds for a connection to come about, each address."""
    read: float = 30.0
    """Seconds without a single byte."""
    window: float = 30.0
    floor: int = 1000
    """Fewer bytes a second than `floor`, over `window` seconds, is a stall."""
    attempts: int = 5
    """Tries in a row that bring nothing; one that brings at least `step` bytes starts the count anew."""
    step: int = 2**16
    first_wait: float = 1.0
    """Seconds before the second try, doubled with each further one, times a random factor ("full jitter")."""
    longest_wait: float = 60.0
    """Seconds, for what Retry-After asks too."""
    measure: float = 0.5
    """Seconds over which a rate is measured before connections are added."""
    worth: float = 4.0
    """Seconds that must be left to go for more connections to be worth it."""
    streams: int = 8
    """Connections at most."""

    def for_bytes(self, size: int) -> float:
        """Return the seconds after which so many bytes must be there, connections and redirects included."""
        return 2 * self.window + size / SLOWEST

    def before_retry(self, tried: int, asked: float | None) -> float:
        """Return the seconds before the next try: what the server asked, else up to twice as long each time."""
        wait = random.uniform(0, self.first_wait * 2**tried) if asked is None else asked
        return min(wait, self.longest_wait)


@dataclass(frozen=True)
class JobTimeouts:
    """Seconds and counts of a remote job. `pace` stretches every wait between requests; 1 but in tests."""

    request: float = 30.0
    submit: float = 60.0
    upload: float = 120.0
    """For one request, its answer included."""
    download: float = 600.0
    """For the finished file."""
    attempts: int = 6
    """Tries of a request that costs nothing, or that was provably not accepted."""
    first_wait: float = 1.0
    longest_wait: float = 30.0
    polls: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Seconds before the first polls; the last one is repeated."""
    deadline: float | None = None
    """After which a job is no longer waited for; it can be resumed. None: the provider's own `work_seconds`."""
    outage: float = 600.0
    """For which a job is waited for while its provider gives no usable answer."""
    pace: float = 1.0

    def before_retry(self, tried: int, asked: float | None) -> float:
        """Return the seconds before the next try: what the server asked, else up to twice as long each time."""
        if asked is not None:
            return asked * self.pace
        return random.uniform(0, min(self.longest_wait, self.first_wait * 2**tried)) * self.pace

    def before_poll(self, polled: int) -> float:
        """Return the seconds before the next poll: growing steps, spread by half either way so that jobs do not poll
        at once."""
        return self.polls[min(polled, len(self.polls) - 1)] * random.uniform(0.5, 1.5) * self.pace


def _context(authority: str) -> ssl.SSLContext:
    return trusted_authorities()


@dataclass(frozen=True)
class Policy:
    """Limits of a session. The functions are those of the user's environment, except in tests."""

    timeouts: Timeouts = Timeouts()
    job_timeouts: JobTimeouts = JobTimeouts()
    offline: bool = False
    """No connection is made; only what the cache has can be had."""
    addresses: Callable[[Url], list[Address]] = public_addresses
    """Link -> where to connect, checked. Raises DownloadError for a host that is not on the public internet."""
    context: Callable[[str], ssl.SSLContext] = _context
    """Host, or host:port -> the TLS context that tells whom to believe. Raises DownloadError."""
    proxy: Callable[[Url], str | None] = environment_proxy
    """Link -> URL of the proxy to reach it through, None for none. Raises DownloadError."""
    mirror: Callable[[], Url | None] = hub_mirror
    """The mirror that stands for Hugging Face, None for none. Raises DownloadError."""
    own_server: Url | None = None
    """A server of the user's own, the one that may be asked by plain http and whose redirects stay on it: see
    own_server.py."""

    def parse(self, link: str, base: Url | None = None) -> Url:
        """Take a link apart as parse_url does, with http for the own server alone. Raises DownloadError."""
        own = self.own_server
        if own is None or own.scheme == "https":
            return parse_url(link, base)
        url = parse_url(link, base, PORTS)
        if url.scheme != "https" and url.origin != own.origin:
            raise DownloadError(f"{url}: only https links are followed, and plain http to {own.origin} alone.")
        return url

    def through_proxy(self, link: str) -> str:
        """Return " through the proxy HOST:PORT" for a link that is reached through one, else "". Raises DownloadError.

        For the text on a node: the proxy's name and password are left out.
        """
        url = self.parse(link)
        proxy = self.proxy((self.mirror() if url.origin == HUB else None) or url)
        return f" through the proxy {shown_proxy(proxy)}" if proxy else ""


def policy_from_environment(environ: Mapping[str, str] = os.environ) -> Policy:
    """Return the policy of normal use, which follows no link into this machine or its network.

    WAN22_OFFLINE, set to anything but nothing and 0, forbids every connection.
    """
    return Policy(offline=environ.get(OFFLINE_VARIABLE, "") not in ("", "0"))


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or a date (RFC 9110, 10.2.3); else None.

    now: seconds since 1970 by the clock that the date is of; None for this machine's.
    """
    value = (value or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    date = http_date(value)
    return None if date is None else max(0.0, date - (time.time() if now is None else now))


def http_date(value: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970; None for anything else."""
    try:
        return email.utils.parsedate_to_datetime(value or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
