"""Policies by which hosts of the internet are servers on loopback.

pipeline.http.policy comes as an argument (`http`): ComfyUI loads the pack under a name of its own, and the classes of
the one are not those of the other.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import ssl
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

VARIABLE = "WAN22_TEST_LOOPBACK"
"""Tells a process of its own which hosts are where; read by the tests' programs, never by the product."""
_context = functools.cache(lambda ca: ssl.create_default_context(cafile=ca))


def loopback_policy(http: ModuleType, hosts: Mapping[str, tuple[str, int]], ca: str | None, *,
                    resolve: Callable[[str, int], list[str]] | None = None, **fields: Any) -> Any:
    """Return a policy by which these hosts (host or host:port), and no other, are at these loopback addresses.

    ca: authority of their certificates, and of these alone; None to ask what the environment says. resolve: looks
    other hosts up. fields: of Policy. No proxy and no mirror is used unless `fields` says so.
    """
    for address, _ in hosts.values():
        if not ipaddress.ip_address(address).is_loopback:
            raise ValueError(f"{address} is not a loopback address.")

    def addresses(url: Any) -> list[tuple[str, int]]:
        if url.authority in hosts:
            return [hosts[url.authority]]
        return http.public_addresses(url, resolve) if resolve else http.public_addresses(url)

    def context(authority: str) -> ssl.SSLContext:
        return _context(ca) if ca is not None and authority in hosts else http.trusted_authorities()

    return http.Policy(**{"addresses": addresses, "context": context, "proxy": lambda url: None,
                          "mirror": lambda: None, **fields})


def loopback_policy_of(http: ModuleType, text: str) -> Any:
    """Return the policy that VARIABLE stands for: JSON, {"ca": path, "hosts": {host: "127.0.0.1:4443"}, "pace": 1}."""
    given = json.loads(text)
    hosts = {host: (place.rpartition(":")[0], int(place.rpartition(":")[2])) for host, place in given["hosts"].items()}
    return loopback_policy(http, hosts, given["ca"], offline=http.policy_from_environment().offline,
                           job_timeouts=http.JobTimeouts(pace=given.get("pace", 1.0)))
