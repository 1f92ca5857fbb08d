"""The remote nodes' settings as a settings page sees and changes them.

The key store as a settings page sees it: keys go in, and only their names come out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..http.secrets import SERVICES
from .database import FILE
from .keys import DEFAULT_PROFILE, NAME, VARIABLE, Keys
from .ledger import Ledger
from .providers import ADAPTERS
from .settings import settings_file

MAX_BODY = 2**14
"""Bytes of a request that brings a key."""
FIELDS = {"profile", "provider", "key"}
VARIABLES = {**{adapter.name: adapter.variables for adapter in ADAPTERS.values()}, NAME: (VARIABLE,),
             **{service.key: service.variables for service in SERVICES}}
"""Whose key -> environment variables that hold it."""


def known_keys(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """{"profiles": {profile: [providers]}, "services": [download services], "environment": [variables]}: names of what
    there is, never a key; and {"variables": {whose: [variables that hold it, by rank]}}. Raises RemoteError for a store
    that must not be used."""
    keys = Keys(folder / "keys.json")
    variables = [name for names in VARIABLES.values() for name in names]
    return {"profiles": keys.known(), "services": keys.known_services(),
            "environment": [name for name in variables if environ.get(name, "").strip()],
            "variables": VARIABLES}


def save_key(folder: Path, body: bytes, *, remove: bool = False) -> None:
    """Keep, or with "" or `remove` take out, the key of {"profile", "provider", "key"}, JSON.

    provider: a provider's name, "callback" (the secret that callbacks are signed with), or without a profile
    "huggingface" or "civitai". Raises ValueError (RemoteError too) with a sentence that holds nothing of the body;
    OSError.
    """
    profile, provider, key = _read(body, remove)
    keys = Keys(folder / "keys.json")
    if provider in {service.key for service in SERVICES}:
        keys.save_token(provider, key)
    elif provider in VARIABLES:
        keys.save(profile, provider, key)
    else:
        raise ValueError(f"provider is none of {', '.join(VARIABLES)}.")


def _read(body: bytes, remove: bool) -> tuple[str, str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and remove:
        found["key"] = ""
    if (not isinstance(found, dict) or not {"provider", "key"} <= set(found) <= FIELDS
            or not all(isinstance(value, str) for value in found.values())):
        raise ValueError('The body is JSON such as {"profile": "default", "provider": "fal", "key": "..."}.')
    return found.get("profile") or DEFAULT_PROFILE, found["provider"], found["key"]


def shown_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """{"settings": {name: {"value", "default", "source", "variable"}}, "jobs_at_once": {provider: its own number},
    "spent": US dollars of the last 24 hours}. Raises ValueError (RemoteError too) for a file that cannot be used."""
    return {"settings": settings_file(folder).shown(environ),
            "jobs_at_once": {adapter.name: adapter.concurrent for adapter in ADAPTERS.values()},
            "spent": Ledger(folder).spent() if (folder / FILE).is_file() else 0.0}


def save_settings(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """See SettingsFile.change."""
    settings_file(folder).change(body, environ)
