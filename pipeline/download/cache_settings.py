"""Settings of downloads, and the cache as a settings page sees it.

A setting comes from the environment, else from a file of ComfyUI's system user directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..files.settings_file import Setting, SettingsFile, number, parse_number
from ..http.errors import DownloadError
from ..http.secrets import SETTINGS, TRUSTED_MIRROR
from .cache import Cache

GB = 10**9
DEFAULT_GB = 50.0
DEFAULT_BYTES = int(DEFAULT_GB * GB)
CACHE_GB = Setting("cache_gb", DEFAULT_GB, number(0.0, 100_000.0, "GB"), "WAN22_CACHE_GB", parse_number)


def settings_file(folder: Path) -> SettingsFile:
    """Return the file of a system user directory."""
    return SettingsFile(folder / SETTINGS, (CACHE_GB, TRUSTED_MIRROR))


def cache_bytes(folder: Path, environ: Mapping[str, str] = os.environ) -> int:
    """Return the bytes that the cache may keep. Raises DownloadError for a setting that cannot be used."""
    try:
        return int(SettingsFile(folder / SETTINGS, (CACHE_GB,)).read(environ)[CACHE_GB.name].value * GB)
    except ValueError as error:
        raise DownloadError(str(error)) from None


def shown_cache(downloads: Path, folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """Return {"settings": {"cache_gb": {"value", "default", "source", "variable"}, ...}, "folder", "files": how many,
    and in bytes "whole", "partial", "idle" (see cache.Usage), "free": of the disk}. Raises ValueError for a setting
    that cannot be used or an index that is broken; OSError."""
    usage = Cache(downloads).usage()
    there = next(path for path in (downloads, *downloads.parents) if path.exists())
    return {"settings": settings_file(folder).shown(environ), "folder": str(downloads), **vars(usage),
            "free": shutil.disk_usage(there).free}


def save_limit(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """Change settings as SettingsFile.change does. What is over a lower limit goes with the next download, or by
    `clean_up`."""
    settings_file(folder).change(body, environ)


def clean_up(downloads: Path) -> None:
    """Remove files that were not used for a day, and downloads that nobody is at. Raises DownloadError; OSError."""
    if downloads.is_dir():
        Cache(downloads).clean(0)
