"""The user's settings for all remote nodes: from the environment, else from a file in the pack's own folder.

They are not among ComfyUI's settings, which any script on its page may change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.settings_file import Setting, SettingsFile, number, parse_number, yes_or_no
from ..http.address import may_be_public, parse_url
from ..http.errors import DownloadError
from ..http.own_server import EXAMPLE, parse_own_server
from . import ui_names
from .budget import NO_LIMITS, Limits
from .errors import ErrorKind, RemoteError
from .keys import DEFAULT_PROFILE, profile_fault

FILE = "remote.json"
OWN_SERVERS = "own_servers"
LOCAL_ONLY_VARIABLE = "WAN22_LOCAL_ONLY"
MOST_DOLLARS, MOST_AT_ONCE = 100_000.0, 1000


@dataclass(frozen=True)
class Settings:
    """The settings; the defaults are those of a user who set nothing."""

    local_only: bool = False
    """No remote node sends anything."""
    public_url: str = ""
    """https base at which the internet reaches this server; "" for none, which leaves webhooks off."""
    budget: Limits = NO_LIMITS
    """Holds for all remote clips, beside the node's own limits."""
    concurrent: Mapping[str, int] = field(default_factory=dict)
    """Provider -> jobs at once, for accounts that allow more than a new one does."""
    prices: Mapping[str, float] = field(default_factory=dict)
    """The provider's name of a model -> US dollars a clip, by the user: for limits and the sum of the day."""
    accepted_estimates: tuple[str, ...] = ()
    """Ids of models without a known price that limits may judge by the highest of the estimates."""
    own_servers: Mapping[str, str] = field(default_factory=dict)
    """Profile -> base URL of the user's own server: the one place in a private network that may be asked."""

    def own_server(self, title: str, profile: str) -> str:
        """Return the address of an own server. Raises RemoteError (AUTH) when there is none; title: of its provider."""
        if not self.own_servers.get(profile):
            raise RemoteError(ErrorKind.AUTH, f"There is no address of {title} in the profile {profile!r}. Save it in "
                              f"{ui_names.KEYS}, such as {EXAMPLE}. Nothing was sent.")
        return self.own_servers[profile]


def _public_url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("takes text, such as https://comfy.example.com.")
    text = value.strip().rstrip("/")
    if not text:
        return ""
    if not text.lower().startswith("https://"):
        raise ValueError("is not https, and providers call https links alone.")
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
        raise ValueError(f"takes a whole number of jobs from 1 to {MOST_AT_ONCE} for each provider, as in "
                         '{"name of the provider": 10}.')
    return value


def _prices(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not all(
            isinstance(usd, (int, float)) and not isinstance(usd, bool) and 0 < usd <= MOST_DOLLARS
            for usd in value.values()):
        raise ValueError('takes US dollars for each model, as in {"wan-video/wan-2.2-i2v-a14b": 0.3}.')
    return value


def _model_ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and 0 < len(name) <= 200 for name in value):
        raise ValueError('takes a list of ids of models, as in ["wan-video/wan-2.2-i2v-a14b"].')
    return tuple(dict.fromkeys(value))


def _own_servers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f'takes an address for each profile, as in {{"{DEFAULT_PROFILE}": "{EXAMPLE}"}}.')
    if fault := next(filter(None, map(profile_fault, value)), ""):
        raise ValueError(f"names a profile that cannot be: {fault}")
    try:
        return {profile: parse_own_server(text).text for profile, text in value.items() if text.strip()}
    except DownloadError as error:
        raise ValueError(f"cannot be used: {error}") from None


_dollars = number(0.0, MOST_DOLLARS, "US dollars (0 is no limit)")
SETTINGS = (
    Setting("local_only", False, yes_or_no, LOCAL_ONLY_VARIABLE, lambda text: text != "0"),
    Setting("public_url", "", _public_url, "WAN22_PUBLIC_URL"),
    Setting("max_cost", 0.0, _dollars, "WAN22_MAX_COST", parse_number),
    Setting("max_cost_per_day", 0.0, _dollars, "WAN22_MAX_COST_PER_DAY", parse_number),
    Setting("concurrent", {}, _jobs_at_once),
    Setting("prices", {}, _prices),
    Setting("accepted_estimates", (), _model_ids),
    Setting(OWN_SERVERS, {}, _own_servers, "WAN22_OWN_SERVER", lambda text: {DEFAULT_PROFILE: text}),
)


def settings_file(folder: Path) -> SettingsFile:
    """Return the settings file of the pack's folder."""
    return SettingsFile(folder / FILE, SETTINGS)


def read_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings as they stand. Raises RemoteError when one of them cannot be used: nothing is sent then."""
    try:
        found = settings_file(folder).read(environ)
    except ValueError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"{error} Nothing was sent.") from None
    values = {name: setting.value for name, setting in found.items()}
    budget = Limits(values.pop("max_cost"), values.pop("max_cost_per_day"))
    return Settings(budget=budget, **values)


def check_sending_allowed(folder: Path) -> None:
    """Raise RemoteError (REFUSED_HERE) when the user lets nothing leave this machine."""
    if read_settings(folder).local_only:
        raise local_only_error("tell another server of clips")


def local_only_error(purpose: str) -> RemoteError:
    """Return the error for a purpose that needs to send something."""
    return RemoteError(ErrorKind.REFUSED_HERE, "Nothing may leave this machine: `Local only` is on, in "
                       f"{ui_names.SENDING} or by {LOCAL_ONLY_VARIABLE}. Switch it off to {purpose}.")
