"""What a file is called, by its link and by the server (Content-Disposition, RFC 6266): for show and for hints, never a
path on this machine."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

LONGEST_HEADER, LONGEST_NAME = 2_000, 200
"""Characters that are looked at, and that are kept of a name."""
_ENCODED = re.compile(r";\s*filename\*\s*=\s*(utf-8|iso-8859-1)'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN = re.compile(r';\s*filename\s*=\s*(?:"([^"]*)"|([^;\s"]+))', re.IGNORECASE)


def said_name(disposition: str | None) -> str | None:
    """The file's name in a Content-Disposition header, without folders; None when it says none."""
    if not disposition or len(disposition) > LONGEST_HEADER:
        return None
    if encoded := _ENCODED.search(disposition):
        name = unquote(encoded[2], encoded[1], "replace")
    elif plain := _PLAIN.search(disposition):
        name = (plain[1] or plain[2] or "").encode("latin-1").decode("utf-8", "replace")  # as browsers read it
    else:
        return None
    return _shown(name.replace("\\", "/").rpartition("/")[2]) or None


def full_name(link: str, said: str | None) -> str:
    """The path in a link and behind it what the server calls the file; neither the link's host nor its query."""
    path = _shown(unquote(urlsplit(link).path))
    return path if said is None or path.endswith(f"/{said}") else f"{path}/{said}"


def _shown(name: str) -> str:
    return "".join(c for c in name.strip() if c.isprintable())[-LONGEST_NAME:]
