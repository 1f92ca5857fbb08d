"""Keys with which providers sign their callbacks, made anew for each server, and a signed callback."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Callback:
    """A request that the provider would make to the webhook's address."""

    url: str
    headers: dict[str, str]
    body: bytes


class SigningKey:
    """An Ed25519 key pair with a key id."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = Ed25519PrivateKey.generate()

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def jwk(self) -> dict[str, str]:
        """The public half (RFC 8037)."""
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid,
                "x": base64url(self._private.public_key().public_bytes_raw())}


def base64url(data: bytes) -> str:
    """Without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
