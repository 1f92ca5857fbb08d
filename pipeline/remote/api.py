"""Requests of an API and its replies, as data; exchange.py makes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..http.policy import http_date, retry_after

LONGEST_RETRY_AFTER = 120.0
MAX_REPLY = 8 * 2**20
"""Bytes of an ordinary answer."""
MAX_MODELS = 64 * 2**20
"""Bytes of the list of all of a provider's models, with their schemas."""


@dataclass(frozen=True)
class Request:
    """A request to make. `body` is None for a GET."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path | None = None
    """A file is read while it is sent."""
    auth: bool = True
    """Whether the provider's key goes with it, if the URL is of an origin that the key may go to."""
    json_answer: bool = True
    """Whether a good answer must be a JSON object."""
    is_answer: Callable[[Reply], bool] = lambda reply: False
    """True for an error reply that answers the request all the same, as one on how a job failed does."""
    limit: int = MAX_REPLY
    """Bytes of the longest answer that is read."""


def get(url: str) -> Request:
    """Return a GET of JSON."""
    return Request("GET", url)


def post(url: str, value: object, headers: Mapping[str, str] | None = None) -> Request:
    """Return a POST of JSON."""
    return Request("POST", url, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())


def form_file(url: str, name: str, data: bytes, content_type: str, field_name: str = "file") -> Request:
    """Return a POST of one file as multipart/form-data (RFC 7578)."""
    boundary = "wan22-" + "0123456789abcdef" * 2
    while boundary.encode() in data:
        boundary += "0"
    head = (f"--{boundary}\r\nContent-Disposition: form-data; name=\"{field_name}\"; filename=\"{name}\"\r\n"
            f"Content-Type: {content_type}\r\n\r\n")
    return Request("POST", url, {"Content-Type": f"multipart/form-data; boundary={boundary}"},
                   head.encode() + data + f"\r\n--{boundary}--\r\n".encode())


@dataclass(frozen=True)
class Reply:
    """A whole answer. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def retry_after(self) -> float | None:
        """Return the seconds that Retry-After asks for, at most 120; None without one."""
        asked = retry_after(self.headers.get("retry-after"), http_date(self.headers.get("date")))
        return None if asked is None else min(asked, LONGEST_RETRY_AFTER)
