"""Whether a callback comes from the provider: its signature over the body as it came, and its time. No I/O.

How each provider signs stands in its own file, as a Scheme made of these parts. JWKS by RFC 7517 and RFC 8037.


Signatures of Standard Webhooks (standard-webhooks, spec/standard-webhooks.md), with a shared secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..json_parts import part

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

WINDOW = 300
"""Seconds that a callback may be old, and that its sender's clock may be ahead."""
Keys = Mapping[str, bytes]
"""Key id -> Ed25519 public key or shared secret; a secret has the id ""."""


class ForgedError(ValueError):
    """A callback that the provider did not make, or not now."""


class UnknownKeyError(ForgedError):
    """None of the keys at hand made the signature. The provider may have changed them."""


@dataclass(frozen=True)
class Callback:
    """A request to the webhook's address."""

    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes
    """As it came: the signature is over these bytes."""


@dataclass(frozen=True)
class Scheme:
    """How a provider signs."""

    verify: Callable[[Callback, Keys, float], str]
    """(callback, keys, seconds since 1970) -> an id that the signature covers, the same for each repetition."""
    url: str
    """Where its keys are, at one of its own hosts."""
    read: Callable[[Any], dict[str, bytes]]
    """The answer there -> the keys; may raise ValueError."""
    secret: bool
    """Whether they are the user's own, which the API key opens."""


def read_jwks(found: Any) -> dict[str, bytes]:
    """The Ed25519 keys of a JWKS: key id -> public key. Others are left out. Raises ValueError."""
    listed, keys = part(found, "keys"), {}
    for key in listed if isinstance(listed, list) else ():
        x = part(key, "x")
        if part(key, "kty") == "OKP" and part(key, "crv") == "Ed25519" and isinstance(x, str):
            keys[str(part(key, "kid") or x)] = decoded(x, base64url)
    return keys


def header(callback: Callback, name: str) -> str:
    """A header that must be there, in small letters. Raises ForgedError."""
    text = callback.headers.get(name, "")
    if not text or not text.isascii():
        raise ForgedError(f"it has no {name}")
    return text


def timestamp(callback: Callback, name: str, now: float) -> str:
    """The header that tells the time, in seconds since 1970. Raises ForgedError unless that is now."""
    text = header(callback, name)
    if not text.isdigit() or len(text) > 12 or abs(now - int(text)) > WINDOW:
        raise ForgedError("it is not of now")
    return text


def decoded(text: str, decode: Callable[[str], bytes]) -> bytes:
    """What a text stands for. Raises ForgedError when `decode` raises ValueError."""
    try:
        return decode(text)
    except ValueError:
        raise ForgedError("the signature cannot be read") from None


def verify_shared(callback: Callback, keys: Keys, now: float, version: str, decode: Callable[[str], bytes]) -> str:
    """HMAC-SHA256 over id.timestamp.body, in the headers of Standard Webhooks, with the key "". Returns the id.

    Several signatures may stand in the header, while a secret is being changed; those of `version` are looked at.
    Raises ForgedError, UnknownKeyError.
    """
    event, time = header(callback, "webhook-id"), timestamp(callback, "webhook-timestamp", now)
    right = digest(keys[""], event, time, callback.body)
    pairs = [one.partition(",") for one in header(callback, "webhook-signature").split()]
    given = [decoded(text, decode) for name, _, text in pairs if name == version]
    if not any(hmac.compare_digest(one, right) for one in given):
        raise UnknownKeyError("the signature is not right")
    return event


def made_by(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature (RFC 8032) over the message is of this public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def base64url(text: str) -> bytes:
    """Without padding, as JOSE writes it (RFC 7515), or with it."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
