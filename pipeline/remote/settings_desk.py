"""The remote nodes' settings as a settings page sees and changes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .database import FILE
from .ledger import Ledger
from .providers import ADAPTERS
from .settings import settings_file


def shown_settings(folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """{"settings": {name: {"value", "default", "source", "variable"}}, "jobs_at_once": {provider: its own number},
    "spent": US dollars of the last 24 hours}. Raises ValueError (RemoteError too) for a file that cannot be used."""
    return {"settings": settings_file(folder).shown(environ),
            "jobs_at_once": {adapter.name: adapter.concurrent for adapter in ADAPTERS.values()},
            "spent": Ledger(folder).spent() if (folder / FILE).is_file() else 0.0}


def save_settings(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """See SettingsFile.change."""
    settings_file(folder).change(body, environ)
