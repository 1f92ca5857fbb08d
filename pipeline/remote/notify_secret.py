"""The secret that our callbacks are signed with: the user's own, shared with the receiver."""

from __future__ import annotations

from .errors import Kind, RemoteError
from .keys import Keys
from .standard_webhooks import PREFIX

NAME, VARIABLE = "callback", "WAN22_CALLBACK_SECRET"
HOW = (f"Set {VARIABLE}, or save it as the key of {NAME!r}: {PREFIX} and 24 to 64 random bytes in base64, such as "
       f"`echo {PREFIX}$(openssl rand -base64 32)` prints. Give the receiver the same.")


def notify_secret(keys: Keys, profile: str) -> bytes:
    """The secret, of the environment or of a profile. Raises RemoteError (AUTH), which does not repeat it."""
    try:
        return keys.of(NAME, "the callbacks' signatures", (VARIABLE,), profile).signing_secret()
    except ValueError as error:
        raise RemoteError(Kind.AUTH, f"The callback cannot be signed: {str(error).rstrip('.')}. {HOW} Or switch "
                          "`signed` off.") from None
