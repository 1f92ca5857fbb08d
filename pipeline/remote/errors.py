"""Errors of remote jobs, with kinds that are the same for every provider."""

from __future__ import annotations

from enum import Enum


class ErrorKind(str, Enum):
    """Why a job brought no clip. The values are stored in the ledger."""

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
"""Kinds after which the same request may succeed a little later."""
FALLBACK_KINDS = (ErrorKind.AUTH, ErrorKind.QUOTA, ErrorKind.VALIDATION, ErrorKind.RATE_LIMIT, ErrorKind.TRANSIENT,
                  ErrorKind.PROVIDER_FAILED, ErrorKind.BUDGET)
"""Kinds after which the next provider is asked; BUDGET because it may be cheaper. Content refusals (POLICY) are never
retried elsewhere."""


class RemoteError(ValueError):
    """A remote job failed. The message says what happened, whether it is paid, and what to do; it holds no secret."""

    def __init__(self, kind: ErrorKind, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after
        """Seconds that the server asked to wait; None when it did not."""


class NotSentError(RemoteError):
    """The request provably did not reach the server whole."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.TRANSIENT, message)


class NoAnswerError(RemoteError):
    """The request was sent, and it is not known whether the server accepted it."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorKind.TRANSIENT, message)


class NotAcceptedError(RemoteError):
    """The paid request was refused or never arrived: nothing is owed, and another provider may be asked."""

    def __init__(self, error: RemoteError) -> None:
        super().__init__(error.kind, str(error), retry_after=error.retry_after)


class RunEndedError(Exception):
    """The run of the graph that waits for a job has ended, and not because the user pressed Stop."""
