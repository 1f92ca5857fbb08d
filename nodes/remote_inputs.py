"""The choice of a provider, its model and a profile of keys, as the remote nodes show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipeline.remote.keys import DEFAULT_PROFILE
from ..pipeline.remote.providers import PROVIDERS, find_target

if TYPE_CHECKING:
    from ..pipeline.remote.provider import Provider
    from ..pipeline.remote.providers import Target


def provider_inputs() -> list[io.Input]:
    """Return the provider with its models, and the profile."""
    return [
        io.DynamicCombo.Input("provider", tooltip="Service that makes the clip and bills your account.", options=[
            io.DynamicCombo.Option(provider.title, [_model_input(provider)]) for provider in PROVIDERS.values()]),
        io.String.Input("profile", default=DEFAULT_PROFILE, optional=True, advanced=True,
                        tooltip="Profile in Settings > Wan 2.2 whose key to use. Never put a key here: save it in the "
                                "settings, or set it as an environment variable "
                                f"({', '.join(a.variables[0] for a in PROVIDERS.values())})."),
    ]


def _model_input(provider: Provider) -> io.Input:
    """Return the model: one of the provider's, or a name that its server knows."""
    if provider.own_server:
        return io.String.Input("model", default=provider.models[0].id,
                               tooltip="Name of a model there. default is the one that it takes by itself; the note on "
                                       "the node lists them once you have changed an input.")
    return io.Combo.Input("model", options=[model.id for model in provider.models],
                          tooltip="The provider's name of the model. The node shows what it cannot honour of your "
                                  "request before anything is sent.")


def options_input() -> io.Input:
    """Return the further parameters of the model. It is the last widget, so that saved workflows keep their values."""
    return io.String.Input("options", default="", optional=True, advanced=True,
                           tooltip="Further parameters of the model as JSON, such as "
                                   '{"acceleration": "none", "shift": 5}. Only those that the provider\'s published '
                                   "schema has, and not its safety settings.")


def read_target(provider: dict[str, Any], profile: str, options: str) -> Target:
    """Return the choice as one object. Raises RemoteError for a provider or a model that is not known."""
    return find_target(provider["provider"], provider.get("model", ""), profile, options)
