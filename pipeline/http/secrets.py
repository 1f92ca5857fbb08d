"""Access tokens of Hugging Face and Civitai: where they come from, and to whom each belongs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import is_open_to_others
from .errors import DownloadError


class Token:
    """A secret that does not show itself."""

    def __init__(self, value: str) -> None:
        self._value = value

    def header(self) -> str:
        """The Authorization header (RFC 6750)."""
        return f"Bearer {self._value}"

    def __repr__(self) -> str:
        return "Token(hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a token is never stored")


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


HUGGING_FACE = Service("Hugging Face", "huggingface", ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
                       ("https://huggingface.co",))
# civitai.green, .com and .red are one site behind three names, with one sign-in (civitai, `apps/auth`).
CIVITAI = Service("Civitai", "civitai", ("CIVITAI_API_TOKEN", "CIVITAI_TOKEN", "CIVITAI_API_KEY"),
                  ("https://civitai.com", "https://civitai.red", "https://civitai.green"))
SERVICES = (HUGGING_FACE, CIVITAI)


def service_of(origin: str) -> Service | None:
    """The service that an origin (https://host) belongs to."""
    return next((service for service in SERVICES if origin in service.origins), None)


def _from_store(path: Path, key: str) -> str:
    """A token out of the key store, "" when there is none. Raises DownloadError for a store that must not be used."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DownloadError(f"The key store {path} cannot be read: {error.strerror}.") from None
    if is_open_to_others(path, mode):
        raise DownloadError(f"The key store {path} can be read by others on this machine. Close it with "
                            f"`chmod 600 {path}`, and run again.")
    try:
        keys = json.loads(text)
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not isinstance(keys.get(key, ""), str):
        raise DownloadError(f'The key store {path} is not valid. It holds JSON such as {{"{key}": "..."}}.')
    return keys.get(key, "")


@dataclass(frozen=True)
class Tokens:
    """The user's tokens, looked for when one is needed: the environment first, then the key store.

    The store is JSON, {"huggingface": "...", "civitai": "..."}, readable by its owner alone.
    """

    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""
    store: Path | None = None

    def of(self, service: Service) -> Token | None:
        """The token for a service, None when the user gave none. Raises DownloadError for an unusable one."""
        environ = os.environ if self.environ is None else self.environ
        named = next((name for name in service.variables if environ.get(name, "").strip()), None)
        value = environ[named].strip() if named else _from_store(self.store, service.key).strip() if self.store else ""
        if not value:
            return None
        if not value.isascii() or not value.isprintable() or " " in value:
            raise DownloadError(f"The {service.name} token in {named or self.store} holds a space or a character that "
                                "no token has. Copy it again.")
        return Token(value)

    def where(self, service: Service) -> str:
        """What to set, for a message."""
        store = f', or "{service.key}" in {self.store}' if self.store else ""
        return f"the environment variable {service.variables[0]}{store}"
