"""A provider's model as a node names it."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Kind, RemoteError
from .providers import ADAPTERS
from .run import Target


@dataclass(frozen=True)
class Offer:
    """A provider's model and whose key to use: what a WAN22_PROVIDERS socket carries a tuple of."""

    provider: str
    """Its title, as the nodes show it."""
    model: str
    profile: str


def target_of(offer: Offer) -> Target:
    """What an offer names. Raises RemoteError (VALIDATION) for a name that nobody has."""
    adapter = next((adapter for adapter in ADAPTERS.values() if adapter.title == offer.provider), None)
    model = adapter and next((model for model in adapter.models if model.id == offer.model), None)
    if adapter is None or model is None:
        known = [model.id for model in adapter.models] if adapter else [a.title for a in ADAPTERS.values()]
        raise RemoteError(Kind.VALIDATION, f"{offer.model if adapter else offer.provider!r} is not known; choose one "
                          f"of {', '.join(known)}.")
    return Target(adapter, model, offer.profile)
