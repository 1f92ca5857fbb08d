"""What the user settled once for all remote nodes: the environment, else a file of ComfyUI's system user directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Kind, RemoteError

FILE = "remote.json"
LOCAL_ONLY_VARIABLE, PUBLIC_URL_VARIABLE = "WAN22_LOCAL_ONLY", "WAN22_PUBLIC_URL"


@dataclass(frozen=True)
class Settings:
    """`local_only`: no remote node sends anything. `public_url`: https base at which the internet reaches this server,
    "" for none, which leaves webhooks off. `concurrent`: provider -> jobs at once, for accounts that allow more than a
    new one does."""

    local_only: bool = False
    public_url: str = ""
    concurrent: Mapping[str, int] = field(default_factory=dict)


def read_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings; WAN22_LOCAL_ONLY (1 or 0) and WAN22_PUBLIC_URL go before the file. Raises RemoteError."""
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        local_only, public_url = found.get("local_only", False), found.get("public_url", "")
        concurrent = found.get("concurrent", {})
        if not (isinstance(local_only, bool) and isinstance(public_url, str)
                and all(isinstance(most, int) and most > 0 for most in concurrent.values())):
            raise ValueError
    except FileNotFoundError:
        local_only, public_url, concurrent = False, "", {}
    except (OSError, ValueError, AttributeError):
        raise RemoteError(Kind.REFUSED_HERE, f'The settings in {path} cannot be read: they hold JSON such as '
                          '{"local_only": false, "public_url": "", "concurrent": {"fal": 10}}. Nothing was sent.',
                          ) from None
    if environ.get(LOCAL_ONLY_VARIABLE):
        local_only = environ[LOCAL_ONLY_VARIABLE] != "0"
    public_url = environ.get(PUBLIC_URL_VARIABLE, public_url).rstrip("/")
    if public_url and not public_url.startswith("https://"):
        raise RemoteError(Kind.REFUSED_HERE, f"The public URL {public_url} is not https, and providers tell the result "
                          "to https alone. Nothing was sent.")
    return Settings(local_only, public_url, concurrent)


def check_may_leave(folder: Path) -> None:
    """Raise RemoteError (REFUSED_HERE) when the user settled that nothing may leave this machine."""
    if read_settings(folder).local_only:
        raise local_only_error("tell another server of clips")


def local_only_error(purpose: str) -> RemoteError:
    """The error of whatever would send something all the same."""
    return RemoteError(Kind.REFUSED_HERE, "Nothing may leave this machine: `local only` is set in the pack's settings, "
                       f"or {LOCAL_ONLY_VARIABLE}. Clear it to {purpose}.")
