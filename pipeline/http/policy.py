"""How long and how often a provider is asked.

How far a download may go: patience, and which servers; the only door to loopback, which tests alone open."""

from __future__ import annotations

import ipaddress
import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .address import resolve

SLOWEST = 100_000
"""Bytes a second that a small answer is expected to come with."""
LOOPBACK_VARIABLE = "WAN22_TEST_LOOPBACK"
OFFLINE_VARIABLE = "WAN22_OFFLINE"


@dataclass(frozen=True)
class Pace:
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

    def patience(self, size: int) -> float:
        """Seconds after which so many bytes must be there, connections and redirects included."""
        return 2 * self.window + size / SLOWEST


@dataclass(frozen=True)
class Policy:
    """What the transport may do."""

    pace: Pace = Pace()
    resolve: Callable[[str, int], list[str]] = resolve
    """(host, port) -> addresses; each is checked before a connection is made to it."""
    offline: bool = False
    """No connection is made; only what the cache has can be had."""
    loopback: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """For tests: host or host:port -> loopback address and port of the server that stands for it."""
    loopback_ca: str | None = None
    """For tests: a file with the authority that signed those servers' certificates, and counts for them alone."""


def policy_from_environment(environ: Mapping[str, str] = os.environ) -> Policy:
    """The policy of normal use, which follows no link into this machine or its network.

    WAN22_OFFLINE, set to anything but nothing and 0, forbids every connection.

    Tests set WAN22_TEST_LOOPBACK to JSON, `{"ca": path, "hosts": {"huggingface.co": "127.0.0.1:4443", ...}}`: these
    hosts, and no other, are then looked for at these loopback addresses. Raises ValueError when it names another
    address.
    """
    offline = environ.get(OFFLINE_VARIABLE, "") not in ("", "0")
    given = environ.get(LOOPBACK_VARIABLE)
    if not given:
        return Policy(offline=offline)
    settings = json.loads(given)
    loopback = {}
    for host, place in settings["hosts"].items():
        address, _, port = place.rpartition(":")
        if not ipaddress.ip_address(address.strip("[]")).is_loopback:
            raise ValueError(f"{LOOPBACK_VARIABLE}: {place} is not a loopback address.")
        loopback[host] = (address.strip("[]"), int(port))
    return Policy(offline=offline, loopback=loopback, loopback_ca=settings["ca"])


@dataclass(frozen=True)
class Patience:
    """Seconds and counts. `pace` stretches every wait between requests; 1 but in tests."""

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
    deadline: float = 1800.0
    """After which a job is no longer waited for; it can be resumed."""
    pace: float = 1.0

    def before_retry(self, tried: int, asked: float | None) -> float:
        """Seconds before the next try: what the server asked, else up to twice as long each time ("full jitter")."""
        if asked is not None:
            return asked * self.pace
        return random.uniform(0, min(self.longest_wait, self.first_wait * 2**tried)) * self.pace

    def before_poll(self, polled: int) -> float:
        """Seconds before the next poll: growing steps, spread by half either way so that jobs do not poll at once."""
        return self.polls[min(polled, len(self.polls) - 1)] * random.uniform(0.5, 1.5) * self.pace


def patience_from_environment(environ: Mapping[str, str] = os.environ) -> Patience:
    """The patience of normal use; tests on loopback may set another pace beside their hosts, as `"pace"`."""
    given = environ.get(LOOPBACK_VARIABLE)
    return Patience(pace=float(json.loads(given).get("pace", 1.0))) if given else Patience()
