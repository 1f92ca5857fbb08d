"""Keep the user's secrets, and send the tokens of Hugging Face and Civitai to nobody but these."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..files.atomic import is_open_to_others
from ..files.settings_file import Setting, SettingsFile
from .address import Url, parse_url
from .environment import HUB
from .errors import DownloadError

T = TypeVar("T")
MAX_SECRET = 4096
"""Characters of a key or token."""
SETTINGS = "downloads.json"
"""The settings of downloads, beside the key store."""


def may_be_secret(value: str) -> bool:
    """Return whether a text can be a key or a token: printable ASCII without a space, of a length that one has."""
    return value.isascii() and value.isprintable() and " " not in value and len(value) <= MAX_SECRET


class Secret:
    """A key or a token, which does not show itself."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self, scheme: str = "Bearer") -> str:
        """Return the Authorization header (RFC 9110, 11.6.2; RFC 6750)."""
        return f"{scheme} {self._value}"

    def parsed(self, parse: Callable[[str], T]) -> T:
        """Return what a function makes of the secret."""
        return parse(self._value)

    def hide_in(self, text: str) -> str:
        """Return the text without the secret, should a server have sent it back."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is never stored")


class KeyStoreError(DownloadError):
    """The key store must not be used. The message says why, and holds nothing of it."""


def read_key_store(path: Path | None) -> dict[str, Any]:
    """Return what the key store holds, {} when there is none.

    Raises KeyStoreError for a store that others can read, or that is no JSON object.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyStoreError(f"The key store {path} cannot be read: {error.strerror}.") from None
    if is_open_to_others(path, mode):
        raise KeyStoreError(f"The key store {path} can be read by others on this machine. Close it with "
                            f"`chmod 600 {path}`, and run again.")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise KeyStoreError(f"The key store {path} is not valid: it holds no JSON object.")
    return found


@dataclass(frozen=True)
class Service:
    """A site that gives tokens to its users."""

    name: str
    key: str
    """Its name in the key store."""
    variables: tuple[str, ...]
    """Environment variables that hold its token, by rank."""
    origins: tuple[str, ...]
    """The token is sent to these alone."""


HUGGING_FACE = Service("Hugging Face", "huggingface", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), (HUB,))
# civitai.green, .com and .red are one site behind three names, with one sign-in (civitai, `apps/auth`).
CIVITAI = Service("Civitai", "civitai", ("CIVITAI_API_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_KEY"),
                  ("https://civitai.com", "https://civitai.red", "https://civitai.green"))
SERVICES = (HUGGING_FACE, CIVITAI)


def service_of(origin: str) -> Service | None:
    """Return the service that an origin (https://host) belongs to."""
    return next((service for service in SERVICES if origin in service.origins), None)


def _host(value: Any) -> str:
    """Return a host in the form of Url.authority, "" for none. Raises ValueError, as Setting.check does."""
    try:
        return parse_url(f"https://{value}").authority if value else ""
    except DownloadError:
        raise ValueError('is no host; it takes a name such as "hub.example".') from None


TRUSTED_MIRROR = Setting("trusted_mirror", "", _host, "WAN22_TRUSTED_MIRROR")
"""The one mirror of Hugging Face that the user's token may be sent to."""


@dataclass(frozen=True)
class Tokens:
    """The user's tokens, looked for when one is needed: the environment first, then the key store.

    The store is JSON, {"huggingface": "...", "civitai": "..."}, readable by its owner alone.
    """

    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""
    store: Path | None = None

    def of(self, service: Service) -> Secret | None:
        """Return the token for a service, None when the user gave none. Raises DownloadError for an unusable one."""
        named = next((name for name in service.variables if self._environ.get(name, "").strip()), None)
        value = self._environ[named] if named else read_key_store(self.store).get(service.key, "")
        if not isinstance(value, str):
            raise KeyStoreError(f'The key store {self.store} is not valid. It holds JSON such as {{"{service.key}": '
                                '"..."}.')
        value = value.strip()
        if not value:
            return None
        if not may_be_secret(value):
            raise DownloadError(f"The {service.name} token in {named or self.store} holds a space or a character that "
                                "no token has. Copy it again.")
        return Secret(value)

    def trusts(self, mirror: Url) -> bool:
        """Return whether the token of Hugging Face may be sent to a mirror. Raises DownloadError for a setting that
        cannot be used."""
        if self.store is None:
            return self._environ.get(TRUSTED_MIRROR.variable, "").strip().lower() == mirror.authority
        try:
            settings = SettingsFile(self.store.parent / SETTINGS, (TRUSTED_MIRROR,)).read(self._environ)
        except ValueError as error:
            raise DownloadError(str(error)) from None
        return settings[TRUSTED_MIRROR.name].value == mirror.authority

    def where(self, service: Service) -> str:
        """Return what to set, for a message."""
        store = f', or "{service.key}" in {self.store}' if self.store else ""
        return f"the environment variable {service.variables[0]}{store}"

    def where_mirror(self) -> str:
        """Return where a trusted mirror is named, for a message."""
        store = f', or "{TRUSTED_MIRROR.name}" in {self.store.parent / SETTINGS}' if self.store else ""
        return f"the environment variable {TRUSTED_MIRROR.variable}{store}"

    @property
    def _environ(self) -> Mapping[str, str]:
        return os.environ if self.environ is None else self.environ


class NoTokens(Tokens):
    """The tokens of a session that asks strangers: none."""

    def of(self, service: Service) -> None:
        return None

    def trusts(self, mirror: Url) -> bool:
        return False
