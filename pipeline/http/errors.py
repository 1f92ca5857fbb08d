"""Name what can go wrong with a request, and show links without their secrets."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit


class DownloadError(ValueError):
    """A file could not be fetched. The message says what, why, what was kept and what to do; never a secret."""


class TransientError(DownloadError):
    """The same request may well succeed a little later."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        """Seconds that the server asked to wait, if it did."""


class UnknownHostError(TransientError):
    """The host's name leads nowhere: it is misspelt, or this machine is not online."""


class ConnectionLostError(TransientError):
    """There was a connection, and it broke off: the request may have arrived."""


def redact(link: str) -> str:
    """Return a link without what may be secret in it: name and password, query, fragment."""
    try:
        parts = urlsplit(link)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "the link"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme and host else link.partition("?")[0]


_LINK = re.compile(r"[a-z]+://[^\s\"'<>]+", re.IGNORECASE)


def redact_links(value: Any) -> Any:
    """Return JSON with every link in its texts redacted."""
    if isinstance(value, str):
        return _LINK.sub(lambda link: redact(link[0]), value)
    if isinstance(value, list):
        return [redact_links(item) for item in value]
    if isinstance(value, dict):
        return {name: redact_links(item) for name, item in value.items()}
    return value
