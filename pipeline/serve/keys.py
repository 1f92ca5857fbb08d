"""The keys of the API: made here, shown once, and kept as hashes. The secret of the signed links is kept beside them.

A key is 32 random bytes, which nobody can guess, so that a plain SHA-256 of it is enough at rest.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.atomic import write_json_object
from ..http.secrets import KeyStoreError, read_key_store
from ..remote.keys import CALLBACK_OWNER, DEFAULT_PROFILE, KeyStore
from ..remote.signatures import SECRET_PREFIX

FILE = "api_keys.json"
VARIABLE = "WAN22_API_KEY"
"""Environment variable with a key, beside those of the file."""
ENVIRONMENT_NAME = "environment"
"""Name of the variable's key."""
PREFIX = "wan22_"
SHORTEST = 16
"""Characters of the variable's key."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
MOST = 100
"""Keys."""
_changing = threading.Lock()


@dataclass(frozen=True)
class NewKey:
    """A key as it is shown, once."""

    key: str
    callback_secret: str
    """Signs the callbacks of this key's predictions."""


@dataclass(frozen=True)
class ApiKeys:
    """The keys of the pack's folder, read each time that one is needed: a revoked key is refused at once.

    Methods raise KeyStoreError for a store that must not be used; OSError when it cannot be written.
    """

    folder: Path
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    """None: the process's own."""

    def make(self, name: str, now: float | None = None) -> NewKey:
        """Make a key of that name and the secret of its callbacks. Raises ValueError for a name that is impossible or
        taken."""
        if not NAME.fullmatch(name) or name == ENVIRONMENT_NAME:
            raise ValueError(f"{name[:40]!r} cannot be a key's name: it has 1 to 32 letters, digits, - and _, and is "
                             f"not {ENVIRONMENT_NAME!r}.")
        key = PREFIX + secrets.token_urlsafe(32)
        callback_secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        with _changing:
            whole = self._read()
            if name in whole["keys"]:
                raise ValueError(f"There is a key named {name!r}. Revoke it first, or choose another name.")
            if len(whole["keys"]) >= MOST:
                raise ValueError(f"There are {MOST} keys, which is the most. Revoke one first.")
            self._callback_store().save(callback_profile(name), CALLBACK_OWNER, callback_secret)
            whole["keys"][name] = {"sha256": _digest(key), "created": time.time() if now is None else now}
            write_json_object(self.folder / FILE, whole)
        return NewKey(key, callback_secret)

    def revoke(self, name: str) -> None:
        """Revoke a key, and forget the secret of its callbacks. Raises ValueError when there is none of that name."""
        with _changing:
            whole = self._read()
            if whole["keys"].pop(name, None) is None:
                raise ValueError(f"There is no key named {name[:40]!r}.")
            write_json_object(self.folder / FILE, whole)
            self._callback_store().save(callback_profile(name), CALLBACK_OWNER, "")

    def shown(self) -> list[dict[str, Any]]:
        """Return [{"name", "created"}], never a key; "created" is null for the environment's."""
        found = [{"name": name, "created": known["created"]} for name, known in self._read()["keys"].items()]
        return found + ([{"name": ENVIRONMENT_NAME, "created": None}] if self._variable() else [])

    def owner(self, key: str) -> str | None:
        """Return the name of the key; None for one that is not valid. Takes the same time for both."""
        digest, found = _digest(key), None
        known = {name: entry["sha256"] for name, entry in self._read()["keys"].items()}
        if variable := self._variable():
            known[ENVIRONMENT_NAME] = _digest(variable)
        for name, other in known.items():
            if hmac.compare_digest(digest, other):
                found = name
        return found

    def link_secret(self) -> bytes:
        """Return the secret that links of outputs are signed with; make it at the first call."""
        with _changing:
            whole = self._read()
            if not whole["link_secret"]:
                whole["link_secret"] = secrets.token_hex(32)
                write_json_object(self.folder / FILE, whole)
            return bytes.fromhex(whole["link_secret"])

    def _variable(self) -> str:
        """Return the environment's key, "" for none. Raises KeyStoreError for one that is easily guessed."""
        value = (os.environ if self.environ is None else self.environ).get(VARIABLE, "").strip()
        if value and len(value) < SHORTEST:
            raise KeyStoreError(f"{VARIABLE} has {len(value)} characters; give it {SHORTEST} or more, such as `openssl "
                                "rand -hex 32` prints.")
        return value

    def _callback_store(self) -> KeyStore:
        return KeyStore(self.folder / "keys.json")

    def _read(self) -> dict[str, Any]:
        whole = read_key_store(self.folder / FILE)
        keys, link_secret = whole.get("keys", {}), whole.get("link_secret", "")
        good = isinstance(keys, dict) and isinstance(link_secret, str) and all(
            isinstance(known, dict) and isinstance(known.get("sha256"), str) and known["sha256"].isascii()
            and "created" in known for known in keys.values()) and re.fullmatch(r"([0-9a-f]{64})?", link_secret)
        if not good:
            raise KeyStoreError(f"{self.folder / FILE} is not valid. Delete it, and make the API's keys anew.")
        return {"keys": dict(keys), "link_secret": link_secret}


def callback_profile(name: str) -> str:
    """Return the profile of the key store whose secret signs the callbacks of a key."""
    return DEFAULT_PROFILE if name == ENVIRONMENT_NAME else f"api-{name}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
