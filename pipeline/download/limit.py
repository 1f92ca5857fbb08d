"""How much the cache of downloads may keep: the environment, else a file of ComfyUI's system user directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..settings_file import Setting, SettingsFile, number, parse_number
from .errors import DownloadError

FILE = "downloads.json"
GB = 10**9
DEFAULT_GB = 50.0
DEFAULT_BYTES = int(DEFAULT_GB * GB)
SETTING = Setting("cache_gb", DEFAULT_GB, number(0.0, 100_000.0, "GB"), "WAN22_CACHE_GB", parse_number)


def limit_file(folder: Path) -> SettingsFile:
    """The file of a system user directory."""
    return SettingsFile(folder / FILE, (SETTING,))


def cache_bytes(folder: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Bytes that the cache may keep. Raises DownloadError for a setting that cannot be used."""
    try:
        return int(limit_file(folder).read(environ)[SETTING.name].value * GB)
    except ValueError as error:
        raise DownloadError(str(error)) from None
