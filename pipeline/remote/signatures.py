"""Verify who sent a webhook: its signature over the body as it came, and its time. Makes no requests.

The parts here are shared; each provider's file combines them into its SignatureScheme. The same signatures, of Standard
Webhooks (standard-webhooks, spec/standard-webhooks.md), go with the callbacks that the pack itself sends. JWKS by
RFC 7517 and RFC 8037.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .json_parts import part

WINDOW = 300
"""Seconds by which a timestamp may differ from now, either way."""
SigningKeys = Mapping[str, bytes]
"""Key id -> Ed25519 public key or shared secret; a shared secret has the id ""."""


class VerificationError(ValueError):
    """The webhook is not from the provider, or not from now."""


class UnknownKeyError(VerificationError):
    """None of the known keys made the signature. The provider may have changed its keys."""


@dataclass(frozen=True)
class WebhookRequest:
    """A request to a webhook's address."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Exactly as it came: the signature is over these bytes."""


@dataclass(frozen=True)
class SignatureScheme:
    """How a provider signs its webhooks."""

    verify: Callable[[WebhookRequest, SigningKeys, float], str]
    """(request, keys, now in seconds since 1970) -> an id that the signature covers, the same for each repetition.
    Raises VerificationError."""
    url: str
    """Where the keys are, at one of the provider's own hosts."""
    read: Callable[[Any], dict[str, bytes]]
    """The JSON there -> the keys. Raises ValueError."""
    secret: bool
    """Whether the keys are the user's own, so that the API key must go with the request."""


def header(request: WebhookRequest, name: str) -> str:
    """Return a required header. Raises VerificationError when it is missing."""
    text = request.headers.get(name, "")
    if not text or not text.isascii():
        raise VerificationError(f"{name} is missing")
    return text


def timestamp(request: WebhookRequest, name: str, now: float) -> str:
    """Return the header with the time in seconds since 1970. Raises VerificationError unless that is now."""
    text = header(request, name)
    if not text.isdigit() or len(text) > 12 or abs(now - int(text)) > WINDOW:
        raise VerificationError("the timestamp is not from now")
    return text


def decoded(text: str, decode: Callable[[str], bytes]) -> bytes:
    """Return a decoded text. Raises VerificationError when `decode` raises ValueError."""
    try:
        return decode(text)
    except ValueError:
        raise VerificationError("the signature cannot be decoded") from None


def base64url(text: str) -> bytes:
    """Decode base64url without padding, as JOSE writes it (RFC 7515), or with it. Raises ValueError."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


# ---- public keys ------------------------------------------------------------------------------------------------


def read_jwks(found: Any) -> dict[str, bytes]:
    """Return the Ed25519 keys of a JWKS, key id -> public key, leaving others out. Raises ValueError."""
    listed, keys = part(found, "keys"), {}
    for key in listed if isinstance(listed, list) else ():
        x = part(key, "x")
        if part(key, "kty") == "OKP" and part(key, "crv") == "Ed25519" and isinstance(x, str):
            keys[str(part(key, "kid") or x)] = decoded(x, base64url)
    return keys


def is_signed_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether an Ed25519 signature (RFC 8032) over the message is of this public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---- shared secrets: Standard Webhooks ---------------------------------------------------------------------------

SECRET_PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes that the specification asks a secret to have."""


def decode_secret(text: str) -> bytes:
    """Decode a secret, whsec_ and base64. Raises ValueError, which does not repeat it."""
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not secret or not text.startswith(SECRET_PREFIX):
        raise ValueError(f"the secret is not {SECRET_PREFIX} and base64")
    return secret


def read_secret(text: str) -> bytes:
    """Decode a secret to sign our own callbacks with, 24 to 64 bytes. Raises ValueError, which does not repeat it."""
    secret = decode_secret(text)
    if not SHORTEST <= len(secret) <= LONGEST:
        raise ValueError(f"the secret has {len(secret)} bytes; {SHORTEST} to {LONGEST} are allowed")
    return secret


def verify_shared(request: WebhookRequest, keys: SigningKeys, now: float, version: str,
                  decode: Callable[[str], bytes]) -> str:
    """Verify the HMAC-SHA256 of Standard Webhooks with the secret keys[""]; return the message's id.

    The header may hold several signatures while a secret is being changed; those of `version` count, decoded by
    `decode`. Raises VerificationError, UnknownKeyError.
    """
    message_id, time = header(request, "webhook-id"), timestamp(request, "webhook-timestamp", now)
    right = _hmac(keys[""], message_id, time, request.body)
    pairs = [one.partition(",") for one in header(request, "webhook-signature").split()]
    given = [decoded(text, decode) for name, _, text in pairs if name == version]
    if not any(hmac.compare_digest(one, right) for one in given):
        raise UnknownKeyError("the signature is not right")
    return message_id


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a callback of ours; timestamp: seconds since 1970."""
    signature = base64.b64encode(_hmac(secret, message_id, str(timestamp), body)).decode()
    return {**unsigned_headers(message_id, timestamp), "webhook-signature": f"v1,{signature}"}


def unsigned_headers(message_id: str, timestamp: int) -> dict[str, str]:
    """Return the headers of a callback of ours that is not signed."""
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}


def _hmac(secret: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    return hmac.digest(secret, b".".join((message_id.encode(), timestamp.encode(), body)), hashlib.sha256)
