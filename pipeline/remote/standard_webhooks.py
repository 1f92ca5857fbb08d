"""Signatures of Standard Webhooks (standard-webhooks, spec/standard-webhooks.md), with a shared secret."""

from __future__ import annotations

import base64
import hashlib
import hmac

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes that the specification asks a secret to have."""


def decode_secret(text: str) -> bytes:
    """A secret as it is written: whsec_ and base64. Raises ValueError, which does not repeat it."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not secret or not text.startswith(PREFIX):
        raise ValueError(f"the secret is not {PREFIX} and base64")
    return secret


def read_secret(text: str) -> bytes:
    """A secret of ours: 24 to 64 bytes. Raises ValueError, which does not repeat it."""
    secret = decode_secret(text)
    if not SHORTEST <= len(secret) <= LONGEST:
        raise ValueError(f"the secret has {len(secret)} bytes; {SHORTEST} to {LONGEST} are allowed")
    return secret


def digest(secret: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    """HMAC-SHA256 over id.timestamp.body."""
    return hmac.digest(secret, b".".join((message_id.encode(), timestamp.encode(), body)), hashlib.sha256)


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a callback that was signed at a time, in seconds since 1970."""
    signature = base64.b64encode(digest(secret, message_id, str(timestamp), body)).decode()
    return {**unsigned_headers(message_id, timestamp), "webhook-signature": f"v1,{signature}"}


def unsigned_headers(message_id: str, timestamp: int) -> dict[str, str]:
    """The headers of a callback that bears no signature."""
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
