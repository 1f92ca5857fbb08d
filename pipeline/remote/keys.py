"""The user's API keys: of the environment, else of a file that its owner alone can read. Nodes name a profile."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import write_object
from ..http.secrets import KeyStoreError, Secret, may_be_secret, read_key_store
from . import ui_names as places
from .errors import Kind, RemoteError

DEFAULT_PROFILE = "default"
NAME, VARIABLE = "callback", "WAN22_CALLBACK_SECRET"
"""Of the secret that callbacks are signed with: in the store, and in the environment."""
PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_saving = threading.Lock()


def _checked(value: str) -> str:
    if not may_be_secret(value.strip()):
        raise ValueError("The key holds a space or a character that no key has, or is too long. Copy it again.")
    return value.strip()


@dataclass(frozen=True)
class Keys:
    """Where keys are looked for, each time that one is needed.

    The store is JSON, {"profiles": {"default": {"fal": "..."}}}, readable by its owner alone. The environment's keys
    are those of the profile `default`, and go before the store's.
    """

    store: Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""

    def of(self, provider: str, title: str, variables: tuple[str, ...], profile: str = DEFAULT_PROFILE) -> Secret:
        """Return the key of a provider. Raises RemoteError (AUTH), with what to do, for none or a bad one."""
        environ = os.environ if self.environ is None else self.environ
        named = next((name for name in variables if environ.get(name, "").strip()), None)
        if profile == DEFAULT_PROFILE and named is not None:
            value, place = environ[named].strip(), f"the environment variable {named}"
        else:
            value, place = self._profiles().get(profile, {}).get(provider, "").strip(), f"the profile {profile!r}"
        if not value:
            other = f"set {variables[0]} in the environment" if profile == DEFAULT_PROFILE else "name another profile"
            raise RemoteError(Kind.AUTH, f"There is no API key of {title} in the profile {profile!r}. Save it in "
                              f"{places.KEYS}, or {other}. Nothing was sent.")
        if not may_be_secret(value):
            raise RemoteError(Kind.AUTH, f"The API key of {title} in {place} holds a space or a character that no key "
                              "has. Copy it again. Nothing was sent.")
        return Secret(value)

    def known(self) -> dict[str, list[str]]:
        """Return profile -> providers that it has a key of, and never the keys."""
        return {profile: sorted(name for name, value in keys.items() if value)
                for profile, keys in sorted(self._profiles().items())}

    def known_services(self) -> list[str]:
        """Return the download services (huggingface, civitai) that the store has a token of, and never the tokens."""
        return sorted(name for name, value in self._read().items() if isinstance(value, str) and value)

    def save(self, profile: str, provider: str, value: str) -> None:
        """Put a key into the store, or with "" take it out. Raises ValueError for a name that is none or a value that
        is no key, which it does not repeat; RemoteError for a store that must not be used; OSError."""
        if not PROFILE.fullmatch(profile) or not PROFILE.fullmatch(provider):
            raise ValueError("A profile is named with 1 to 40 letters, digits, - and _.")
        with _saving:
            profiles = self._profiles()
            keys = {**profiles.get(profile, {}), provider: _checked(value)}
            profiles[profile] = {name: key for name, key in keys.items() if key}
            self._write({**self._read(), "profiles": {name: found for name, found in profiles.items() if found}})

    def save_token(self, service: str, value: str) -> None:
        """Put in, or take out, the token of a download service, which no profile has: see http/secrets.py."""
        with _saving:
            whole = {**self._read(), service: _checked(value)}
            self._write({name: found for name, found in whole.items() if found != ""})

    def _write(self, whole: dict[str, object]) -> None:
        if self.store is None:
            raise ValueError("There is no key store.")
        write_object(self.store, whole)

    def _profiles(self) -> dict[str, dict[str, str]]:
        found = self._read().get("profiles", {})
        good = isinstance(found, dict) and all(
            isinstance(keys, dict) and all(isinstance(key, str) for key in keys.values()) for keys in found.values())
        if not good:
            raise RemoteError(Kind.AUTH, f'The key store {self.store} is not valid: "profiles" holds profile -> '
                              'provider -> key, such as {"default": {"fal": "..."}}.')
        return {name: dict(keys) for name, keys in found.items()}

    def _read(self) -> dict[str, object]:
        try:
            return read_key_store(self.store)
        except KeyStoreError as error:
            raise RemoteError(Kind.AUTH, str(error)) from None
