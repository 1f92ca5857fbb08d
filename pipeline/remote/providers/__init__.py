"""The registry of providers, one file each, and the look-up of a provider's model by the names on a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ErrorKind, RemoteError
from ..model import RemoteModel
from ..options import Option, read_options
from ..provider import Provider
from .atlascloud import AtlasCloud
from .comfyui import AnotherComfyUI
from .fal import Fal
from .replicate import Replicate
from .wavespeed import WaveSpeed

PROVIDERS: dict[str, Provider] = {
    provider.name: provider for provider in (WaveSpeed(), AtlasCloud(), Fal(), Replicate(), AnotherComfyUI())}
"""Name -> provider, in the order in which they are offered."""


@dataclass(frozen=True)
class Target:
    """A provider's model, and the profile whose key to use; a WAN22_PROVIDERS socket carries a tuple of them."""

    provider: Provider
    model: RemoteModel
    profile: str
    options: Mapping[str, Option] = field(default_factory=dict)
    """Further parameters of the model, from options.read_options."""


def find_target(title: str, model_id: str, profile: str, options: str = "") -> Target:
    """Return the target that a node names. options: JSON, or "" for none.

    Raises RemoteError (VALIDATION) for an unknown provider or model, or options that cannot be read.
    """
    provider = next((provider for provider in PROVIDERS.values() if provider.title == title), None)
    if provider is None:
        titles = ", ".join(provider.title for provider in PROVIDERS.values())
        raise RemoteError(ErrorKind.VALIDATION, f"The provider {title!r} is not known; choose one of {titles}.")
    model = provider.model(model_id)
    if model is None:
        ids = ", ".join(model.id for model in provider.models)
        raise RemoteError(ErrorKind.VALIDATION, f"{title} has no model {model_id!r}; choose one of {ids}.")
    return Target(provider, model, profile, read_options(options))
