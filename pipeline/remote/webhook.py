"""Whether a callback comes from the provider: its signature over the body as it came, and its time. No I/O.

One function for each kind of signature; SCHEMES says whose is which, and where the keys are published. Sources:
wavespeed.ai/docs/how-to-use-webhooks, atlascloud.ai/docs/en/webhooks, fal.ai/docs (webhooks, verification),
replicate.com/docs/topics/webhooks/verify-webhook, JWKS by RFC 7517 and RFC 8037.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .adapter import part
from .providers import atlascloud, fal, replicate, wavespeed
from .standard_webhooks import PREFIX, decode_secret, digest

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


def verify_wavespeed(callback: Callback, keys: Keys, now: float) -> str:
    """`v3,<hex>`: HMAC-SHA256 over id.timestamp.body. Returns the id. Raises ForgedError, UnknownKeyError.

    The key is the secret's text after whsec_, as bytes: it is not decoded.
    """
    event, time = _header(callback, "webhook-id"), _time(callback, "webhook-timestamp", now)
    right = digest(keys[""], event, time, callback.body)
    _check_shared(_listed(callback, "v3", bytes.fromhex), right)
    return event


def verify_replicate(callback: Callback, keys: Keys, now: float) -> str:
    """Standard Webhooks, `v1,<base64>`. Returns the id. Raises ForgedError, UnknownKeyError."""
    event, time = _header(callback, "webhook-id"), _time(callback, "webhook-timestamp", now)
    right = digest(keys[""], event, time, callback.body)
    _check_shared(_listed(callback, "v1", lambda text: base64.b64decode(text, validate=True)), right)
    return event


def verify_atlascloud(callback: Callback, keys: Keys, now: float) -> str:
    """Ed25519 in base64url over timestamp.body, by the key that is named. Raises ForgedError, UnknownKeyError.

    Returns the body's session_id: the header with an id is not signed.
    """
    prefix = "x-atlascloud-webhook"
    time = _time(callback, f"{prefix}-timestamp", now)
    signature = _decoded(_header(callback, f"{prefix}-signature-ed25519"), _base64url)
    kid = _header(callback, f"{prefix}-key-id")
    if kid not in keys:
        raise UnknownKeyError("the key is not one of the provider's")
    if not _made_by(keys[kid], signature, time.encode() + b"." + callback.body):
        raise ForgedError("the signature is not right")
    event = part(_json(callback.body), "session_id")
    if not isinstance(event, str) or not event:
        raise ForgedError("it has no session_id")
    return event


def verify_fal(callback: Callback, keys: Keys, now: float) -> str:
    """Ed25519 in hex over request id, user id, timestamp and SHA-256 of the body in hex, a line each, by any of the
    keys. Returns the request's id. Raises ForgedError, UnknownKeyError."""
    prefix = "x-fal-webhook"
    time = _time(callback, f"{prefix}-timestamp", now)
    event, user = _header(callback, f"{prefix}-request-id"), _header(callback, f"{prefix}-user-id")
    signature = _decoded(_header(callback, f"{prefix}-signature"), bytes.fromhex)
    message = "\n".join((event, user, time, hashlib.sha256(callback.body).hexdigest())).encode()
    if not any(_made_by(key, signature, message) for key in keys.values()):
        raise UnknownKeyError("the signature is not right")
    return event


def read_jwks(found: Any) -> dict[str, bytes]:
    """The Ed25519 keys of a JWKS: key id -> public key. Others are left out. Raises ValueError."""
    listed, keys = part(found, "keys"), {}
    for key in listed if isinstance(listed, list) else ():
        x = part(key, "x")
        if part(key, "kty") == "OKP" and part(key, "crv") == "Ed25519" and isinstance(x, str):
            keys[str(part(key, "kid") or x)] = _decoded(x, _base64url)
    return keys


def read_wavespeed_secret(found: Any) -> dict[str, bytes]:
    """The secret of GET /webhook/secret."""
    text = part(found, "data", "secret")
    return {"": text.removeprefix(PREFIX).encode()} if isinstance(text, str) and text else {}


def read_replicate_secret(found: Any) -> dict[str, bytes]:
    """The secret of GET /v1/webhooks/default/secret. Raises ValueError when it is none."""
    text = part(found, "key")
    return {"": decode_secret(text)} if isinstance(text, str) else {}


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


SCHEMES = {
    "wavespeed": Scheme(verify_wavespeed, f"{wavespeed.BASE}/webhook/secret", read_wavespeed_secret, secret=True),
    "atlascloud": Scheme(verify_atlascloud, f"{atlascloud.BASE}/webhooks/jwks.json", read_jwks, secret=False),
    "fal": Scheme(verify_fal, f"{fal.REST}/.well-known/jwks.json", read_jwks, secret=False),
    "replicate": Scheme(verify_replicate, f"{replicate.BASE}/webhooks/default/secret", read_replicate_secret,
                        secret=True),
}


def _header(callback: Callback, name: str) -> str:
    text = callback.headers.get(name, "")
    if not text or not text.isascii():
        raise ForgedError(f"it has no {name}")
    return text


def _time(callback: Callback, name: str, now: float) -> str:
    text = _header(callback, name)
    if not text.isdigit() or len(text) > 12 or abs(now - int(text)) > WINDOW:
        raise ForgedError("it is not of now")
    return text


def _decoded(text: str, decode: Callable[[str], bytes]) -> bytes:
    try:
        return decode(text)
    except ValueError:
        raise ForgedError("the signature cannot be read") from None


def _listed(callback: Callback, version: str, decode: Callable[[str], bytes]) -> list[bytes]:
    """The signatures of a version: several may stand in the header, while a secret is being changed."""
    pairs = [one.partition(",") for one in _header(callback, "webhook-signature").split()]
    return [_decoded(text, decode) for name, _, text in pairs if name == version]


def _check_shared(signatures: list[bytes], right: bytes) -> None:
    if not any(hmac.compare_digest(one, right) for one in signatures):
        raise UnknownKeyError("the signature is not right")


def _made_by(key: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _base64url(text: str) -> bytes:
    """Without padding, as JOSE writes it (RFC 7515), or with it."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
