"""Files that another program holds for a moment.

On Windows nobody can rename, replace or remove a file that is open elsewhere, and virus scanners and search indexers
open each new one for some milliseconds. Other systems never say so, and nothing here waits there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

HELD = (5, 32, 33)
"""ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION (Windows, winerror.h)."""
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the tries."""


def is_held(error: OSError) -> bool:
    """Whether the error may come of another program that has the file open."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in HELD


def retried(operation: Callable[[], T], waits: Sequence[float] = WAITS,
            wait: Callable[[float], None] = time.sleep) -> T:
    """What the operation returns, tried again after each of the waits while a file is held. Raises what it raises."""
    for seconds in waits:
        try:
            return operation()
        except PermissionError as error:
            if not is_held(error):
                raise
        wait(seconds)
    return operation()


def clear_away(path: Path) -> None:
    """Remove a file that nobody needs, if it is there; one that cannot be removed stays."""
    with suppress(OSError):
        retried(lambda: path.unlink(missing_ok=True))
