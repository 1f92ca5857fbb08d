"""What the user settled once for all remote nodes: the environment, else a file of ComfyUI's system user directory.

Not among ComfyUI's own settings, which whatever runs on the page may change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.settings_file import Setting, SettingsFile, number, parse_number, yes_or_no
from ..http.address import may_be_public, parse_url
from . import ui_names as places
from .errors import Kind, RemoteError
from .ledger import NO_LIMITS, Limits

FILE = "remote.json"
LOCAL_ONLY_VARIABLE = "WAN22_LOCAL_ONLY"
MOST_DOLLARS, MOST_AT_ONCE = 100_000.0, 1000


@dataclass(frozen=True)
class Settings:
    """`local_only`: no remote node sends anything. `public_url`: https base at which the internet reaches this server,
    "" for none, which leaves webhooks off. `budget`: for all remote clips, beside what a node sets itself.
    `concurrent`: provider -> jobs at once, for accounts that allow more than a new one does."""

    local_only: bool = False
    public_url: str = ""
    budget: Limits = NO_LIMITS
    concurrent: Mapping[str, int] = field(default_factory=dict)


def _public_url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("takes text, such as https://comfy.example.com.")
    text = value.strip().rstrip("/")
    if not text:
        return ""
    if not text.lower().startswith("https://"):
        raise ValueError("is not https, and providers tell the result to https alone.")
    url = parse_url(text)
    if not may_be_public(url.host):
        raise ValueError(f"is {url}, on this machine or its network, where no provider reaches it.")
    if "?" in text or "#" in text:
        raise ValueError("has a ? or a #. Give the part before it.")
    return text


def _jobs_at_once(value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
            isinstance(most, int) and not isinstance(most, bool) and 1 <= most <= MOST_AT_ONCE
            for most in value.values()):
        raise ValueError(f'takes a whole number of jobs from 1 to {MOST_AT_ONCE} for a provider, as in {{"fal": 10}}.')
    return value


_dollars = number(0.0, MOST_DOLLARS, "US dollars (0 is no limit)")
SETTINGS = (
    Setting("local_only", False, yes_or_no, LOCAL_ONLY_VARIABLE, lambda text: text != "0"),
    Setting("public_url", "", _public_url, "WAN22_PUBLIC_URL"),
    Setting("max_cost", 0.0, _dollars, "WAN22_MAX_COST", parse_number),
    Setting("max_cost_per_day", 0.0, _dollars, "WAN22_MAX_COST_PER_DAY", parse_number),
    Setting("concurrent", {}, _jobs_at_once),
)


def settings_file(folder: Path) -> SettingsFile:
    """The file of a system user directory."""
    return SettingsFile(folder / FILE, SETTINGS)


def read_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings as they stand. Raises RemoteError when one of them cannot be used: then nothing is sent."""
    try:
        found = settings_file(folder).read(environ)
    except ValueError as error:
        raise RemoteError(Kind.REFUSED_HERE, f"{error} Nothing was sent.") from None
    values = {name: setting.value for name, setting in found.items()}
    budget = Limits(values.pop("max_cost"), values.pop("max_cost_per_day"))
    return Settings(budget=budget, **values)


def check_may_leave(folder: Path) -> None:
    """Raise RemoteError (REFUSED_HERE) when the user settled that nothing may leave this machine."""
    if read_settings(folder).local_only:
        raise local_only_error("tell another server of clips")


def local_only_error(purpose: str) -> RemoteError:
    """The error of whatever would send something all the same."""
    return RemoteError(Kind.REFUSED_HERE, f"Nothing may leave this machine: `Local only` is on, in {places.SENDING} or "
                       f"by {LOCAL_ONLY_VARIABLE}. Switch it off to {purpose}.")
