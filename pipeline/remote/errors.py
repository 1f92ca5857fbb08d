"""What can go wrong with a remote job, in kinds that do not depend on the provider."""

from __future__ import annotations

from enum import Enum


class ErrorKind(str, Enum):
    """Why a job did not bring a clip."""

    AUTH = "auth"
    QUOTA = "quota"
    VALIDATION = "validation"
    POLICY = "policy"
    RATE_LIMIT = "rate limit"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    INTEGRITY = "integrity"
    PROVIDER_FAILED = "provider failed"
    SUBMIT_UNKNOWN = "submit unknown"
    DOWNLOAD_EXPIRED = "download expired"
    LOST = "lost"
    BUDGET = "budget"
    REFUSED_HERE = "refused here"


RETRYABLE = (ErrorKind.RATE_LIMIT, ErrorKind.TRANSIENT)
"""Kinds that the same request may well not meet a little later."""
FALLBACK_KINDS = (ErrorKind.AUTH, ErrorKind.QUOTA, ErrorKind.VALIDATION, ErrorKind.RATE_LIMIT, ErrorKind.TRANSIENT, ErrorKind.PROVIDER_FAILED, ErrorKind.BUDGET)
"""Kinds of a refusal after which another provider is worth asking; by the user's own limits, one may be cheaper. Not
POLICY: a refusal is not shopped around."""


class RemoteError(ValueError):
    """A remote job went wrong. The message says what, whether it is paid, and what to do; never a secret."""

    def __init__(self, kind: ErrorKind, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        """Seconds that the server asked to wait, if it did."""


class NotSentError(RemoteError):
    """The request provably never reached the provider whole."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.TRANSIENT, message)


class NoAnswerError(RemoteError):
    """The request was sent, and whether it was accepted is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.TRANSIENT, message)


class NotAcceptedError(RemoteError):
    """The paid request was refused, or never arrived: nothing is owed, and another provider may be asked."""

    def __init__(self, error: RemoteError) -> None:
        super().__init__(error.kind, str(error), retry_after=error.retry_after)


class RunEndedError(Exception):
    """The run of the graph that a job was driven for is over, and not because the user pressed Stop."""
