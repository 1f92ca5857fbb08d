"""Choosing a provider, its model and a profile of keys, as the remote nodes show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE, PROFILE
from ..pipeline.remote.providers import ADAPTERS

if TYPE_CHECKING:
    from ..pipeline.remote.run import Offer


def provider_inputs() -> list[io.Input]:
    """The provider with its models, and the profile."""
    return [
        io.DynamicCombo.Input("provider", tooltip="Who makes the clip, and is paid for it by you.", options=[
            io.DynamicCombo.Option(adapter.title, [
                io.Combo.Input("model", options=[model.id for model in adapter.models],
                               tooltip="The provider's name of the model. What it cannot honour of your request is "
                                       "said on the node before anything is sent."),
            ]) for adapter in ADAPTERS.values()]),
        io.String.Input("profile", default=DEFAULT_PROFILE, optional=True, advanced=True,
                        tooltip="Which of your saved keys to use. A key is never written here: it comes from an "
                                f"environment variable ({', '.join(a.variables[0] for a in ADAPTERS.values())}) or "
                                "from the pack's own store."),
    ]


def profile_fault(profile: str | None) -> str:
    """A sentence when this is no profile's name, such as a key pasted into the wrong place; else an empty string."""
    if profile is None or PROFILE.fullmatch(profile):
        return ""
    return ("profile is no name of a profile: it has 1 to 40 letters, digits, - and _. A key does not belong here; set "
            "it as an environment variable.")


def read_offer(provider: dict[str, Any], profile: str) -> Offer:
    """The choice as one object."""
    from ..pipeline.remote.run import Offer

    return Offer(provider["provider"], provider.get("model", ""), profile)
