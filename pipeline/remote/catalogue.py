"""The inputs of hosted models as their providers publish them, asked for once an hour."""

from __future__ import annotations

import threading
import time

from .client import ProviderClient

MAX_AGE = 3600.0
"""Seconds for which an answer is used: two providers answer with the list of all their models."""
_lock = threading.Lock()
_known: dict[tuple[object, ...], tuple[float, frozenset[str] | None]] = {}
"""(provider, its origins, model, hash of the key: accounts see different models) -> when it was asked for, and the
answer."""


async def published_fields(client: ProviderClient, model_name: str) -> frozenset[str] | None:
    """Return the names of a model's parameters; None where its provider publishes none.

    Raises RemoteError, also for a model that is not in the list any more; an error is not kept.
    """
    asked = (client.provider.name, client.provider.origins, model_name, client.key.parsed(hash))
    with _lock:
        when, fields = _known.get(asked, (0.0, None))
    if when and time.monotonic() - when < MAX_AGE:
        return fields
    fields = await client.run(client.provider.fields(model_name))
    if fields:
        with _lock:
            _known[asked] = (time.monotonic(), fields)
    return fields


def forget() -> None:
    """Forget all answers, as when a model has refused what they say it takes."""
    with _lock:
        _known.clear()
