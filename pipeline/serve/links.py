"""Links of finished clips that stand for the key: signed, and good for a day."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode

from .operations import BASE

GOOD_FOR = 24 * 3600
"""Seconds."""
NAME = "clip.mp4"
"""What every clip is called in its link."""


def signed_link(base: str, secret: bytes, prediction_id: str, now: float) -> str:
    """Return the link of a prediction's clip. base: scheme and host, for the outside. now: seconds since 1970."""
    expires = int(now) + GOOD_FOR
    query = urlencode({"expires": expires, "signature": _signature(secret, prediction_id, expires)})
    return f"{base}{BASE}/files/{prediction_id}/{NAME}?{query}"


def is_signed(secret: bytes, prediction_id: str, expires: int, signature: str, now: float) -> bool:
    """Return whether a link's signature is right and its time not over. Takes the same time for right and wrong."""
    right = _signature(secret, prediction_id, expires)
    return hmac.compare_digest(right.encode(), signature.encode("utf-8", "replace")) and now < expires


def _signature(secret: bytes, prediction_id: str, expires: int) -> str:
    return hmac.digest(secret, f"{prediction_id}/{NAME}/{expires}".encode(), hashlib.sha256).hex()
