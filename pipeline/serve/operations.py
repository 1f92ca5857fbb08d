"""The API's operations, one row each: its routes are made from this table, and so is openapi.json."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .errors import STATUS
from .status import STATUSES

BASE = "/wan22/api/v1"
GUIDE_BASE = "/wan22/api/v3"
GUIDE_MODEL = "wan-2.2-spicy-image-to-video-lora"
"""The model whose endpoint the hosted API's clients use, behind its owner's name."""
MP4, JSON = "video/mp4", "application/json"
SHA256, UPLOAD = r"^[0-9a-fA-F]{64}$", r"upload:[0-9a-fA-F]{64}"
"""Patterns of a hash, and of the name that an uploaded file has in a request."""
MOST_LISTED = 100
"""Predictions of one page."""


@dataclass(frozen=True)
class Parameter:
    """A part of the path, of the query or of the headers."""

    name: str
    place: str
    """"path", "query" or "header"."""
    schema: dict[str, Any]
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One route."""

    name: str
    method: str
    path: str
    """With {names} of its parameters; below BASE."""
    summary: str
    status: int = 200
    """Of the answer when all is well."""
    answer: str = ""
    """Name of the answer's form in schemas.py; a media type for a file; "" for an empty answer."""
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    """Name of the form of a JSON body."""
    takes_file: bool = False
    errors: tuple[str, ...] = ()
    """Codes of errors beside those that every operation may have."""
    has_key: bool = True
    """False for what is answered without a key."""
    base: str = BASE

    @property
    def has_body(self) -> bool:
        """True when its requests have a body, and so make work."""
        return bool(self.body) or self.takes_file

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of all errors that the operation may answer with."""
        common = ("forbidden", "not_found", "unavailable", *(("unauthorized",) if self.has_key else ()))
        sent = ("bad_request", "too_slow", "too_large", "unsupported_media_type", "invalid_request", "rate_limited")
        return (*common, *(sent if self.has_body else ()), *self.errors)

    @property
    def statuses(self) -> set[int]:
        """HTTP statuses of all errors that the operation may answer with."""
        return {STATUS[code] for code in self.codes}


ID = Parameter("id", "path", {"type": "string", "format": "uuid"}, True)
OWNER = Parameter("owner", "path", {"type": "string", "pattern": "^[a-z0-9-]+$"}, True)
HASH = Parameter("sha256", "path", {"type": "string", "pattern": SHA256}, True)
IDEMPOTENCY = Parameter("Idempotency-Key", "header", {"type": "string", "minLength": 1, "maxLength": 255,
                                                      "pattern": r"^[!-~]+$"})
LIST_PARAMETERS = (
    Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20}),
    Parameter("before", "query", {"type": "string", "format": "uuid"}),
    Parameter("status", "query", {"type": "string", "enum": list(STATUSES)}),
)
LINK_PARAMETERS = (
    Parameter("name", "path", {"type": "string"}, True),
    Parameter("expires", "query", {"type": "integer", "minimum": 0}, True),
    Parameter("signature", "query", {"type": "string"}, True),
)
OPERATIONS = (
    Operation("submit", "POST", "/image-to-video", "Ask for a clip", 202, "Prediction", (IDEMPOTENCY,), "ClipForm",
              errors=("idempotency_conflict", "queue_full")),
    Operation("list", "GET", "/predictions", "List the key's predictions, the newest first", 200, "PredictionPage",
              LIST_PARAMETERS, errors=("invalid_request",)),
    Operation("get", "GET", "/predictions/{id}", "Tell how a prediction stands", 200, "Prediction", (ID,)),
    Operation("result", "GET", "/predictions/{id}/result", "Send the MP4", 200, MP4, (ID,), errors=("not_completed",)),
    Operation("cancel", "POST", "/predictions/{id}/cancel", "Cancel a prediction that waits or runs", 200, "Prediction",
              (ID,)),
    Operation("delete", "DELETE", "/predictions/{id}", "Delete a prediction's files and its record", 204, "", (ID,),
              errors=("not_ended",)),
    Operation("upload", "POST", "/uploads", "Upload a picture or a LoRA", 201, "UploadShown", takes_file=True),
    Operation("uploaded", "GET", "/uploads/{sha256}", "Tell whether a file is here", 200, "UploadShown", (HASH,)),
    Operation("has_upload", "HEAD", "/uploads/{sha256}", "Tell whether a file is here", 200, "", (HASH,)),
    Operation("models", "GET", "/models", "List the models", 200, "ModelList"),
    Operation("openapi", "GET", "/openapi.json", "This document", 200, JSON, has_key=False),
    Operation("file", "GET", "/files/{id}/{name}", "Send the MP4 by a signed link", 200, MP4, (ID, *LINK_PARAMETERS),
              errors=("invalid_request",), has_key=False),
    Operation("guide_submit", "POST", f"/{{owner}}/{GUIDE_MODEL}", "Ask for a clip, in the hosted API's envelope",
              200, "GuideEnvelope", (OWNER, IDEMPOTENCY), "ClipForm", errors=("idempotency_conflict", "queue_full"),
              base=GUIDE_BASE),
    Operation("guide_get", "GET", "/predictions/{id}", "Tell how a prediction stands, in the hosted API's envelope",
              200, "GuideEnvelope", (ID,), base=GUIDE_BASE),
    Operation("guide_result", "GET", "/predictions/{id}/result", "The same", 200, "GuideEnvelope", (ID,),
              base=GUIDE_BASE),
)


def methods_of(path: str) -> list[str]:
    """Return the methods that a path takes; [] when there is no such path."""
    return [operation.method for operation in OPERATIONS
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", operation.base + operation.path), path)]
