"""Read parts of JSON that another server sent, whose shape is not certain."""

from __future__ import annotations

import math
from typing import Any

from .api import Reply
from .errors import Kind, RemoteError


def part(value: Any, *path: str | int) -> Any:
    """A value deep in JSON; None when it is not there."""
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def text_part(reply: Reply, *path: str | int) -> str:
    """A text that an answer must hold. Raises RemoteError (TRANSIENT) when it does not."""
    found = part(reply.json(), *path)
    if not isinstance(found, str) or not found:
        raise RemoteError(Kind.TRANSIENT, f"An answer came without {path[-1]!r}, which it always has.")
    return found


def list_part(value: Any, *path: str | int) -> list[Any]:
    """A list deep in JSON; an empty one when it is not there."""
    found = part(value, *path)
    return found if isinstance(found, list) else []


def word_part(value: Any, *path: str | int) -> str:
    """A text deep in JSON; "" when it is not there."""
    found = part(value, *path)
    return found if isinstance(found, str) else ""


def number_part(value: Any, *path: str | int) -> float | None:
    """A finite number deep in JSON, written as text or not; None when it is none."""
    found = part(value, *path)
    try:
        number = math.nan if found is None or isinstance(found, bool) else float(found)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
