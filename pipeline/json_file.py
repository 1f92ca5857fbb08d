"""A JSON object on the disk, written so that nobody ever finds half of it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .held_file import clear_away, retried


def read_object(path: Path) -> dict[str, Any]:
    """What the file holds, {} when there is none. Raises ValueError when that is no JSON object; OSError."""
    try:
        found = json.loads(path.read_bytes())  # as bytes: editors on Windows begin a file with a byte order mark
    except FileNotFoundError:
        return {}
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def write_object(path: Path, whole: dict[str, Any]) -> None:
    """Put an object in the place of the file, readable by its owner alone. Raises OSError, with the old file kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        retried(lambda: os.replace(name, path))
    except BaseException:
        clear_away(Path(name))
        raise
