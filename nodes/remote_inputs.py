"""The choice of a provider, its model and a profile of keys, as the remote nodes show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE
from ..pipeline.remote.providers import ADAPTERS

if TYPE_CHECKING:
    from ..pipeline.remote.run import Offer


def provider_inputs() -> list[io.Input]:
    """Return the provider with its models, and the profile."""
    return [
        io.DynamicCombo.Input("provider", tooltip="Service that makes the clip and bills your account for "
                                                  "it.", options=[
            io.DynamicCombo.Option(adapter.title, [
                io.Combo.Input("model", options=[model.id for model in adapter.models],
                               tooltip="The provider's name of the model. The node shows what it cannot honour of your "
                                       "request before anything is sent."),
            ]) for adapter in ADAPTERS.values()]),
        io.String.Input("profile", default=DEFAULT_PROFILE, optional=True, advanced=True,
                        tooltip="Profile in Settings > Wan 2.2 whose key to use. Never put a key here: save it in the "
                                "settings, or set it as an environment variable "
                                f"({', '.join(a.variables[0] for a in ADAPTERS.values())})."),
    ]


def read_offer(provider: dict[str, Any], profile: str) -> Offer:
    """Return the choice as one object."""
    from ..pipeline.remote.run import Offer

    return Offer(provider["provider"], provider.get("model", ""), profile)
