"""The user's API keys, from the environment or from a file that its owner alone can read. Nodes name a profile."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import is_open_to_others, write_object
from . import ui_names
from .errors import ErrorKind, RemoteError
from .signatures import read_secret

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


MAX_KEY = 4096
_saving = threading.Lock()


def _may_be_key(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and len(value) <= MAX_KEY


def _checked(value: str) -> str:
    if not _may_be_key(value.strip()):
        raise ValueError("The key holds a space or a character that no key has, or is too long. Copy it again.")
    return value.strip()


class Key:
    """An API key that does not show itself."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self, scheme: str) -> str:
        """The Authorization header (RFC 9110, 11.6.2)."""
        return f"{scheme} {self._value}"

    def signing_secret(self) -> bytes:
        """A secret for signatures (see standard_webhooks.read_secret). Raises ValueError, which does not repeat it."""
        return read_secret(self._value)

    def hide_in(self, text: str) -> str:
        """The text without the key, should a server have sent it back."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        return "Key(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a key is never stored")


@dataclass(frozen=True)
class KeyStore:
    """Reads the keys each time that one is needed.

    The store is JSON, {"profiles": {profile: {provider: key}}}, readable by its owner alone. The environment's keys are
    those of the profile `default`, and override the store's.
    """

    store: Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""

    def of(self, provider: str, title: str, variables: tuple[str, ...], profile: str = DEFAULT_PROFILE) -> Key:
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
        if not _may_be_key(value):
            raise RemoteError(ErrorKind.AUTH, f"The API key of {title} in {place} holds a space or a character "
                              "that no key has. Copy it again. Nothing was sent.")
        return Key(value)

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
        write_object(self.store, whole)

    def _profiles(self) -> dict[str, dict[str, str]]:
        found = self._read().get("profiles", {})
        good = isinstance(found, dict) and all(
            isinstance(keys, dict) and all(isinstance(key, str) for key in keys.values()) for keys in found.values())
        if not good:
            raise RemoteError(ErrorKind.AUTH, f'The key store {self.store} is not valid: "profiles" holds profile -> '
                              'provider -> key, such as {"default": {"name of the provider": "..."}}.')
        return {name: dict(keys) for name, keys in found.items()}

    def _read(self) -> dict[str, object]:
        if self.store is None:
            return {}
        try:
            with self.store.open("rb") as file:
                mode, text = os.fstat(file.fileno()).st_mode, file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RemoteError(ErrorKind.AUTH,
                              f"The key store {self.store} cannot be read: {error.strerror}.") from None
        if is_open_to_others(self.store, mode):
            raise RemoteError(ErrorKind.AUTH, f"The key store {self.store} can be read by others on this machine. "
                              f"Close it with `chmod 600 {self.store}`, and run again.")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(ErrorKind.AUTH, f"The key store {self.store} is not valid JSON.")
        return found
