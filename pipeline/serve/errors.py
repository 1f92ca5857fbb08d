"""The errors of the API, all of one shape: {"error": {"code", "message", "field"?, "fields"?}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATUS = {
    "bad_request": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404, "method_not_allowed": 405,
    "too_slow": 408, "not_completed": 409, "not_ended": 409, "idempotency_conflict": 409, "too_large": 413,
    "unsupported_media_type": 415, "invalid_request": 422, "rate_limited": 429, "queue_full": 429, "unavailable": 503,
}
"""Code of an error -> HTTP status."""
LONGEST = 500
"""Characters of a message: what was given is repeated in it."""


class ApiError(Exception):
    """A request that is refused. The message says what was given, what is allowed and what to do."""

    def __init__(self, code: str, message: str, fields: Mapping[str, str] | None = None,
                 headers: Mapping[str, str] | None = None) -> None:
        """code: a key of STATUS. fields: field of the request -> sentence. headers: of the answer."""
        super().__init__(message)
        self.code, self.message, self.fields, self.headers = code, message, dict(fields or {}), dict(headers or {})

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return STATUS[self.code]

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        found: dict[str, Any] = {"code": self.code, "message": shortened(self.message)}
        if self.fields:
            found |= {"field": next(iter(self.fields)),
                      "fields": {name: shortened(sentence) for name, sentence in self.fields.items()}}
        return {"error": found}


def shortened(text: str) -> str:
    """Return a text that may be shown: no longer than LONGEST, and with nothing that UTF-8 cannot hold."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def field_error(fields: Mapping[str, str]) -> ApiError:
    """Return the error for a request whose fields are at fault, {field: sentence}; the first one is its message."""
    return ApiError("invalid_request", next(iter(fields.values())), fields)


def not_found(thing: str) -> ApiError:
    """Return the error for a prediction, an upload or a route that is not there, or is another key's."""
    return ApiError("not_found", f"There is no such {thing}.")
