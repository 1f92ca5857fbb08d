"""The settings of the API: from the environment, else from a file in the pack's own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.settings_file import Setting, SettingsFile, number, parse_number, yes_or_no

FILE = "api.json"


@dataclass(frozen=True)
class ApiSettings:
    """The settings; the defaults are those of a user who set nothing."""

    on: bool = False
    """Requests are served."""
    model: str = ""
    """Used when a request names none; "" is the 14B model once its files are here, else the bundled one."""
    per_minute: float = 120.0
    """Clips and uploads that a key may ask for in a minute."""
    queue: float = 100.0
    """Clips of a key that may wait or run at one time."""
    retention_days: float = 7.0
    """Days for which clips, pictures and uploads are kept."""


def _model(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError("takes the name of a model, such as GET /wan22/api/v1/models lists.")
    return value.strip()


SETTINGS = (
    Setting("on", ApiSettings.on, yes_or_no, "WAN22_API", lambda text: text != "0"),
    Setting("model", ApiSettings.model, _model, "WAN22_API_MODEL"),
    Setting("per_minute", ApiSettings.per_minute, number(1, 100_000, "requests a minute"), "WAN22_API_PER_MINUTE",
            parse_number),
    Setting("queue", ApiSettings.queue, number(1, 10_000, "clips"), "WAN22_API_QUEUE", parse_number),
    Setting("retention_days", ApiSettings.retention_days, number(1, 3650, "days"), "WAN22_API_RETENTION_DAYS",
            parse_number),
)


def settings_file(folder: Path) -> SettingsFile:
    """Return the settings file of the pack's folder."""
    return SettingsFile(folder / FILE, SETTINGS)


def read_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> ApiSettings:
    """Return the settings as they stand. Raises ValueError with a sentence when one cannot be used."""
    return ApiSettings(**{name: found.value for name, found in settings_file(folder).read(environ).items()})
