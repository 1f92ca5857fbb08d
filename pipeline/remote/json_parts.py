"""Read values out of another server's JSON, whose shape is not certain."""

from __future__ import annotations

import math
from typing import Any


def part(value: Any, *path: str | int) -> Any:
    """Return the value at a path of keys and indices; None when it is not there."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def list_part(value: Any, *path: str | int) -> list[Any]:
    """Return the list at a path; an empty one when there is none."""
    found = part(value, *path)
    return found if isinstance(found, list) else []


def word_part(value: Any, *path: str | int) -> str:
    """Return the text at a path; "" when there is none."""
    found = part(value, *path)
    return found if isinstance(found, str) else ""


def number_part(value: Any, *path: str | int) -> float | None:
    """Return the finite number at a path, also when written as text; None when there is none."""
    found = part(value, *path)
    try:
        number = math.nan if found is None or isinstance(found, bool) else float(found)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
