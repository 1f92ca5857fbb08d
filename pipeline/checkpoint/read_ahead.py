"""Bringing a file into the system's page cache while something else computes."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

CHUNK = 1 << 24
"""Bytes read at once."""


def read_ahead(files: Sequence[Path]) -> threading.Thread | None:
    """Start to read memory-mapped files, so that their first use does not wait for the disk.

    Does nothing, and returns None, when they would not fit the free RAM: they would push out what is in use. Errors
    are left to the one who uses the files.
    """
    try:
        size = sum(file.stat().st_size for file in files)
    except OSError:
        return None
    if size > psutil.virtual_memory().available:
        return None
    thread = threading.Thread(target=_read, args=(tuple(files),), name="wan22-read-ahead", daemon=True)
    thread.start()
    return thread


def _read(files: Sequence[Path]) -> None:
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
                    continue
                buffer = bytearray(CHUNK)
                while file.readinto(buffer):
                    pass
        except OSError:
            return
