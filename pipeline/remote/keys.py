"""The user's API keys: of the environment, else of a file that its owner alone can read. Nodes name a profile."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import is_open_to_others, write_object
from . import ui_names as places
from .errors import Kind, RemoteError
from .webhooks.signatures import read_secret

DEFAULT_PROFILE = "default"
PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


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
class Keys:
    """Where keys are looked for, each time that one is needed.

    The store is JSON, {"profiles": {"default": {"fal": "..."}}}, readable by its owner alone. The environment's keys
    are those of the profile `default`, and go before the store's.
    """

    store: Path | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""

    def of(self, provider: str, title: str, variables: tuple[str, ...], profile: str = DEFAULT_PROFILE) -> Key:
        """The key of a provider. Raises RemoteError (AUTH), with what to do, when there is none or it is no key."""
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
        if not _may_be_key(value):
            raise RemoteError(Kind.AUTH, f"The API key of {title} in {place} holds a space or a character that no key "
                              "has. Copy it again. Nothing was sent.")
        return Key(value)

    def known(self) -> dict[str, list[str]]:
        """Profile -> providers that it has a key of, and never the keys."""
        return {profile: sorted(name for name, value in keys.items() if value)
                for profile, keys in sorted(self._profiles().items())}

    def known_services(self) -> list[str]:
        """Download services (huggingface, civitai) that the store has a token of, and never the tokens."""
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
        """The same for the token of a download service, which no profile has: see download/tokens.py."""
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
        if self.store is None:
            return {}
        try:
            with self.store.open("rb") as file:
                mode, text = os.fstat(file.fileno()).st_mode, file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RemoteError(Kind.AUTH, f"The key store {self.store} cannot be read: {error.strerror}.") from None
        if is_open_to_others(self.store, mode):
            raise RemoteError(Kind.AUTH, f"The key store {self.store} can be read by others on this machine. Close it "
                              f"with `chmod 600 {self.store}`, and run again.")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RemoteError(Kind.AUTH, f"The key store {self.store} is not valid JSON.")
        return found

NAME, VARIABLE = "callback", "WAN22_CALLBACK_SECRET"
