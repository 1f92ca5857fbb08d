"""Fetch providers' signing keys when a webhook needs them, and keep them in memory alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...http.policy import Policy
from ..api import get
from ..errors import RemoteError
from ..exchange import exchange
from ..keys import KeyStore
from ..providers import PROVIDERS
from ..signatures import SigningKeys

MAX_AGE = 24 * 3600.0
"""Seconds for which keys are used before they are fetched again."""
COOLDOWN = 60.0
"""Seconds between two fetches for one account, so that forged webhooks do not flood the provider."""
TIMEOUT = 5.0
"""Seconds for a fetch: providers wait some ten for the reply to their webhook."""


class KeysUnavailableError(Exception):
    """The signing keys cannot be fetched now."""


@dataclass(frozen=True)
class _CachedKeys:
    keys: SigningKeys = field(default_factory=dict, repr=False)
    fetched: float | None = None
    asked: float | None = None


class SigningKeyCache:
    """Signing keys by provider and profile; safe for several threads, which wait while one fetches."""

    def __init__(self, fetch: Callable[[str, str], SigningKeys], clock: Callable[[], float] = time.monotonic) -> None:
        """fetch: (provider, profile) -> keys; raises KeysUnavailableError. clock: seconds."""
        self._fetch, self._clock = fetch, clock
        self._cached: dict[tuple[str, str], _CachedKeys] = {}
        self._lock = threading.Lock()

    def keys(self, provider: str, profile: str, newer: bool = False) -> SigningKeys:
        """Return the keys; newer: fetch them again, unless that was done a minute ago. Raises KeysUnavailableError."""
        account = (provider, profile)
        with self._lock:
            cached, now = self._cached.get(account, _CachedKeys()), self._clock()
            stale = cached.fetched is None or now - cached.fetched > MAX_AGE
            resting = cached.asked is not None and now - cached.asked < COOLDOWN
            if (stale or newer) and not resting:
                self._cached[account] = cached = replace(cached, asked=now)
                cached = self._cached[account] = _CachedKeys(self._fetch(provider, profile), now, now)
            elif stale:
                raise KeysUnavailableError("the last fetch failed a moment ago")
            return cached.keys


def fetch_keys(provider_name: str, profile: str, keys: KeyStore, policy: Policy) -> SigningKeys:
    """Fetch a provider's signing keys. Raises KeysUnavailableError, which holds nothing secret."""
    provider = PROVIDERS[provider_name]
    scheme = provider.webhook
    request = get(scheme.url)
    try:
        if scheme.secret:
            key = keys.of(provider.name, provider.title, provider.variables, profile)
            request = replace(request, headers={"Authorization": key.header(provider.scheme)})
        reply = exchange(request, policy, TIMEOUT)
        found = scheme.read(reply.json()) if reply.good else {}
    except (RemoteError, ValueError) as error:
        raise KeysUnavailableError(type(error).__name__) from None
    if not found:
        raise KeysUnavailableError(f"status {reply.status}, and no keys")
    return found
