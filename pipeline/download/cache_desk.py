"""The cache of downloads as a settings page sees it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .cache import Cache
from .limit import limit_file


def shown_cache(downloads: Path, folder: Path, environ: Mapping[str, str] = os.environ) -> dict[str, object]:
    """{"settings": {"cache_gb": {"value", "default", "source", "variable"}}, "folder", "files": how many, and in bytes
    "whole", "partial", "idle" (see cache.Usage), "free": of the disk}. Raises ValueError for a setting that cannot be
    used or an index that is broken; OSError."""
    usage = Cache(downloads).usage()
    there = next(path for path in (downloads, *downloads.parents) if path.exists())
    return {"settings": limit_file(folder).shown(environ), "folder": str(downloads), **vars(usage),
            "free": shutil.disk_usage(there).free}


def save_limit(folder: Path, body: bytes, environ: Mapping[str, str] = os.environ) -> None:
    """See SettingsFile.change. What is over a lower limit goes with the next download, or by `clean_up`."""
    limit_file(folder).change(body, environ)


def clean_up(downloads: Path) -> None:
    """Remove what was not used for a day, and downloads given up a week ago. Raises DownloadError; OSError."""
    if downloads.is_dir():
        Cache(downloads).clean(0)
