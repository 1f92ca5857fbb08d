"""Further parameters of a hosted model, which a user types as JSON: what may be in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from .errors import ErrorKind, RemoteError

EXAMPLE = '{"acceleration": "none", "shift": 5}'
MOST = 20
LONGEST = 200
"""Characters of a name or a text."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SAFETY = re.compile(r"safety|moderation|nsfw|content_filter", re.IGNORECASE)
"""In the names of parameters that stay as the provider has them."""
OTHER_ANSWER = re.compile(r"sync_mode|base64|webhook|callback", re.IGNORECASE)
"""In the names of parameters that change how the provider answers: the clip that was paid for would not be found."""

Option = bool | int | float | str


def read_options(text: str) -> dict[str, Option]:
    """Return the parameters in a text, {} for an empty one. Raises RemoteError (VALIDATION) for anything else."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused(f"are not JSON. Write them as in {EXAMPLE}") from None
    if not isinstance(found, dict) or len(found) > MOST:
        raise _refused(f"must be at most {MOST} names with a value each, as in {EXAMPLE}")
    for name, value in found.items():
        if not NAME.fullmatch(name) or len(name) > LONGEST:
            raise _refused(f"have the name {name[:LONGEST]!r}, which no parameter has")
        if SAFETY.search(name):
            raise _refused(f"have {name}: the provider's own checks stay as it sets them. Take it out")
        if OTHER_ANSWER.search(name):
            raise _refused(f"have {name}, which would change how the provider answers. Take it out")
        if not isinstance(value, (bool, int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
            raise _refused(f"have a {name} that is neither a number, a text, true nor false")
        if isinstance(value, str) and len(value) > LONGEST:
            raise _refused(f"have a {name} of {len(value)} characters; {LONGEST} are allowed")
    return found


def check_options(options: Mapping[str, Any], taken: Collection[str]) -> None:
    """Raise RemoteError (VALIDATION) for a parameter that the node itself sets. taken: the names of those."""
    for name in options:
        if name in taken:
            raise _refused(f"have {name}, which the node sets itself. Use its own input, or take it out")


def _refused(what: str) -> RemoteError:
    return RemoteError(ErrorKind.VALIDATION, f"The options {what}. Nothing was sent.")
