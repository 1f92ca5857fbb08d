"""The settings page's view of providers, keys and settings: keys go in, and only their names come out."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from ..files.atomic import read_json_object
from ..http.own_server import parse_own_server
from ..http.secrets import SERVICES
from .database import FILE
from .keys import CALLBACK_OWNER, CALLBACK_VARIABLE, DEFAULT_PROFILE, KeyStore
from .ledger import Ledger
from .providers import PROVIDERS
from .settings import OWN_SERVERS, SETTINGS, settings_file

MAX_BODY = 2**14
"""Bytes of a request that brings a key."""
FIELDS = {"profile", "provider", "key"}
VARIABLES = {**{provider.name: provider.variables for provider in PROVIDERS.values()},
             CALLBACK_OWNER: (CALLBACK_VARIABLE,),
             **{service.key: service.variables for service in SERVICES}}
"""Owner of a key (a provider, the callback secret, a download service) -> environment variables that hold it."""
MAPS = {setting.name for setting in SETTINGS if isinstance(setting.default, dict)}
"""Settings with an entry for each profile, provider or model."""
_saving = threading.Lock()


def shown_providers() -> dict[str, object]:
    """Return whose keys there can be; see nodes/routes/keys.py for the form. Reads neither keys nor settings."""
    return {
        "providers": [{"name": provider.name, "title": provider.title, "key_name": provider.key_name,
                       "keys_page": provider.keys_page, "variables": provider.variables,
                       "concurrent": provider.concurrent, "own_server": provider.own_server,
                       "models": {model.id: model.label for model in provider.models}}
                      for provider in PROVIDERS.values()],
        "services": [{"name": service.key, "title": service.name, "variables": service.variables}
                     for service in SERVICES],
        "callback": {"name": CALLBACK_OWNER, "variables": (CALLBACK_VARIABLE,)}}


def known_keys(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """Return the names of the keys that there are, never a key.

    {"profiles": {profile: [providers]}, "services": [download services], "environment": {owner: variable that holds its
    key}}. Raises RemoteError for a store that must not be used.
    """
    keys = KeyStore(folder / "keys.json")
    held = {owner: next((name for name in names if environ.get(name, "").strip()), None)
            for owner, names in VARIABLES.items()}
    return {"profiles": keys.known(), "services": keys.known_services(),
            "environment": {owner: name for owner, name in held.items() if name is not None}}


def save_key(folder: Path, body: bytes, *, remove: bool = False) -> None:
    """Save the key of {"profile", "provider", "key"}, JSON; with "" or `remove`, delete it.

    provider: a provider's name, "callback" (the secret that callbacks are signed with), or without a profile the key
    of a download service. Raises ValueError (RemoteError too) with a sentence that repeats nothing of the body;
    OSError.
    """
    profile, provider, key = _read(body, remove)
    keys = KeyStore(folder / "keys.json")
    if provider in {service.key for service in SERVICES}:
        keys.save_token(provider, key)
    elif provider in VARIABLES:
        keys.save(profile, provider, key)
    else:
        raise ValueError(f"provider is not known; it is one of {', '.join(VARIABLES)}.")


def _read(body: bytes, remove: bool) -> tuple[str, str, str]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and remove:
        found["key"] = ""
    if (not isinstance(found, dict) or not {"provider", "key"} <= set(found) <= FIELDS
            or not all(isinstance(value, str) for value in found.values())):
        raise ValueError('The body must be JSON such as {"profile": "default", "provider": '
                         f'"{next(iter(PROVIDERS))}", "key": "..."}}.')
    return found.get("profile") or DEFAULT_PROFILE, found["provider"], found["key"]


def shown_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """Return {"settings": {name: {"value", "default", "source", "variable"}}, "spent": US dollars in 24 hours}.

    Raises ValueError (RemoteError too) for a file that cannot be used.
    """
    return {"settings": settings_file(folder).shown(environ),
            "spent": Ledger(folder).spent() if (folder / FILE).is_file() else 0.0}


def save_settings(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """Change settings as SettingsFile.change does, with its errors; of a map, only the entries that the body has.

    A null removes an entry, and in place of the map all of them: a page that shows an older state loses no other entry.
    An own server's key is for the address that it was saved for: with another one it is deleted, so that no page can
    have it sent elsewhere. Raises RemoteError for a key store that must not be used.
    """
    with _saving:
        before = _own_origins(folder, environ)
        settings_file(folder).change(_with_other_entries(folder, body), environ)
        after, keys = _own_origins(folder, environ), KeyStore(folder / "keys.json")
        moved = [profile for profile, origin in before.items() if after.get(profile, origin) != origin]
        for provider in PROVIDERS.values():
            for profile in moved if provider.own_server else ():
                keys.save(profile, provider.name, "")


def _with_other_entries(folder: Path, body: bytes) -> bytes:
    """Return a change in which every map has its other entries as well; what cannot be read is for `change` to say."""
    try:
        changes, held = json.loads(body), read_json_object(settings_file(folder).path)
    except (OSError, ValueError, RecursionError):
        return body
    if not isinstance(changes, dict):
        return body
    for name in MAPS & changes.keys():
        if isinstance(entries := changes[name], dict):
            others = held.get(name)
            whole = (others if isinstance(others, dict) else {}) | entries
            changes[name] = {key: value for key, value in whole.items() if value is not None} or None
    return json.dumps(changes).encode()


def _own_origins(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return profile -> origin of its own server; {} for settings that cannot be used, with which nothing is sent."""
    try:
        addresses = settings_file(folder).read(environ)[OWN_SERVERS].value
    except ValueError:
        return {}
    return {profile: parse_own_server(address).origin for profile, address in addresses.items()}
