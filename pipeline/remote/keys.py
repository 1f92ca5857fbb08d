"""The user's API keys, from the environment or from a file that its owner alone can read. Nodes name a profile."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import write_json_object
from ..http.secrets import KeyStoreError, Secret, may_be_secret, read_key_store
from . import ui_names
from .errors import ErrorKind, RemoteError

CALLBACK_OWNER, CALLBACK_VARIABLE = "callback", "WAN22_CALLBACK_SECRET"
"""Whose key in the store signs our callbacks, and the environment variable that holds it."""
DEFAULT_PROFILE = "default"
PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def profile_fault(profile: str | None) -> str:
    """Return a sentence when this is not a profile name, such as a key pasted into the wrong place; else ""."""
    if profile is None or PROFILE.fullmatch(profile):
        return ""
    return ("profile is not a profile name: it has 1 to 40 letters, digits, - and _. Never put a key here; save it in "
            f"{ui_names.KEYS}.")


_saving = threading.Lock()


def _checked(value: str) -> str:
    if not may_be_secret(value.strip()):
        raise ValueError("The key holds a space or a character that no key has, or is too long. Copy it again.")
    return value.strip()


@dataclass(frozen=True)
class KeyStore:
    """Reads the keys each time that one is needed.

    The store is JSON, {"profiles": {profile: {provider: key}}}, readable by its owner alone. The environment's keys are
    those of the profile `default`, and override the store's.
    """

    store: Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""

    def of(self, provider: str, title: str, variables: tuple[str, ...], profile: str = DEFAULT_PROFILE) -> Secret:
        """Return the key of a provider. Raises RemoteError (AUTH) when there is none or it cannot be one."""
        environ = os.environ if self.environ is None else self.environ
        named = next((name for name in variables if environ.get(name, "").strip()), None)
        if profile == DEFAULT_PROFILE and named is not None:
            value, place = environ[named].strip(), f"the environment variable {named}"
        else:
            value, place = self._profiles().get(profile, {}).get(provider, "").strip(), f"the profile {profile!r}"
        if not value:
            other = f"set {variables[0]} in the environment" if profile == DEFAULT_PROFILE else "name another profile"
            raise RemoteError(ErrorKind.AUTH, f"There is no API key of {title} in the profile {profile!r}. Save it in "
                              f"{ui_names.KEYS}, or {other}. Nothing was sent.")
        if not may_be_secret(value):
            raise RemoteError(ErrorKind.AUTH, f"The API key of {title} in {place} holds a space or a character "
                              "that no key has. Copy it again. Nothing was sent.")
        return Secret(value)

    def known(self) -> dict[str, list[str]]:
        """Return profile -> names of the providers that the store has a key of, never the keys."""
        return {profile: sorted(name for name, value in keys.items() if value)
                for profile, keys in sorted(self._profiles().items())}

    def known_services(self) -> list[str]:
        """Return the names of the download services that the store has a token of, never the tokens."""
        return sorted(name for name, value in self._read().items() if isinstance(value, str) and value)

    def save(self, profile: str, provider: str, value: str) -> None:
        """Save a key, or with "" delete it. Raises ValueError for an impossible name or key, which it does not repeat;
        RemoteError for a store that must not be used; OSError."""
        if not PROFILE.fullmatch(profile) or not PROFILE.fullmatch(provider):
            raise ValueError("The name of a profile must have 1 to 40 letters, digits, - and _.")
        with _saving:
            profiles = self._profiles()
            keys = {**profiles.get(profile, {}), provider: _checked(value)}
            profiles[profile] = {name: key for name, key in keys.items() if key}
            self._write({**self._read(), "profiles": {name: found for name, found in profiles.items() if found}})

    def save_token(self, service: str, value: str) -> None:
        """Save or delete the token of a download service, which belongs to no profile: see http/secrets.py."""
        with _saving:
            whole = {**self._read(), service: _checked(value)}
            self._write({name: found for name, found in whole.items() if found != ""})

    def _write(self, whole: dict[str, object]) -> None:
        if self.store is None:
            raise ValueError("There is no key store.")
        write_json_object(self.store, whole)

    def _profiles(self) -> dict[str, dict[str, str]]:
        found = self._read().get("profiles", {})
        good = isinstance(found, dict) and all(
            isinstance(keys, dict) and all(isinstance(key, str) for key in keys.values()) for keys in found.values())
        if not good:
            raise RemoteError(ErrorKind.AUTH, f'The key store {self.store} is not valid: "profiles" holds profile -> '
                              'provider -> key, such as {"default": {"name of the provider": "..."}}.')
        return {name: dict(keys) for name, keys in found.items()}

    def _read(self) -> dict[str, object]:
        try:
            return read_key_store(self.store)
        except KeyStoreError as error:
            raise RemoteError(ErrorKind.AUTH, str(error)) from None
