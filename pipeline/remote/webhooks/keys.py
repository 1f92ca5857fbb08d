"""Providers' signing keys, fetched when a callback asks for them and kept in memory alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...http.policy import Policy
from ..api import exchange, get
from ..errors import RemoteError
from ..keys import Keys
from ..providers import ADAPTERS

FRESH = 24 * 3600.0
"""Seconds for which keys are used before they are fetched again."""
COOLDOWN = 60.0
"""Seconds between two fetches for one account, so that forged callbacks do not become a flood at the provider."""
PATIENCE = 5.0
"""Seconds for a fetch: providers wait some ten for the answer to their callback."""

SigningKeys = dict[str, bytes]


class NoKeysError(Exception):
    """The keys cannot be had just now."""


@dataclass(frozen=True)
class _Kept:
    keys: SigningKeys = field(default_factory=dict, repr=False)
    fetched: float | None = None
    asked: float | None = None


class KeyRing:
    """Signing keys by provider and profile. For several threads; a fetch keeps the others waiting."""

    def __init__(self, fetch: Callable[[str, str], SigningKeys], clock: Callable[[], float] = time.monotonic) -> None:
        """fetch(provider, profile) raises NoKeysError. clock: seconds."""
        self._fetch, self._clock = fetch, clock
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._lock = threading.Lock()

    def keys(self, provider: str, profile: str, newer: bool = False) -> SigningKeys:
        """The keys; with `newer`, fetched again unless that was done a minute ago. Raises NoKeysError."""
        account = (provider, profile)
        with self._lock:
            kept, now = self._kept.get(account, _Kept()), self._clock()
            stale = kept.fetched is None or now - kept.fetched > FRESH
            resting = kept.asked is not None and now - kept.asked < COOLDOWN
            if (stale or newer) and not resting:
                self._kept[account] = kept = replace(kept, asked=now)
                kept = self._kept[account] = _Kept(self._fetch(provider, profile), now, now)
            elif stale:
                raise NoKeysError("they could not be fetched a moment ago")
            return kept.keys


def fetch_keys(provider: str, profile: str, keys: Keys, policy: Policy) -> SigningKeys:
    """Ask the provider for its signing keys. Raises NoKeysError, which says nothing secret."""
    adapter = ADAPTERS[provider]
    scheme = adapter.webhook
    request = get(scheme.url)
    try:
        if scheme.secret:
            key = keys.of(provider, adapter.title, adapter.variables, profile)
            request = replace(request, headers={"Authorization": key.header(adapter.scheme)})
        reply = exchange(request, policy, PATIENCE)
        found = scheme.read(reply.json()) if reply.good else {}
    except (RemoteError, ValueError) as error:
        raise NoKeysError(type(error).__name__) from None
    if not found:
        raise NoKeysError(f"status {reply.status}, and no keys")
    return found
