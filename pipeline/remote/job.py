"""A remote job: one clip, bought once, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class State(str, Enum):
    """Where a job stands. Its life goes down this list, and never back up after its end."""

    NEW = "new"
    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    DOWNLOADING = "downloading"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMED_OUT = "timed out"
    LOST = "lost"
    SUBMIT_UNKNOWN = "submit unknown"


UNSENT = (State.NEW, State.UPLOADING)
ACCEPTED = (State.QUEUED, State.RUNNING, State.DOWNLOADING, State.TIMED_OUT)
"""The provider has the job, and asking again may bring the clip. Timed out: we gave up waiting, it did not."""
OVER = (State.FAILED, State.CANCELED, State.LOST)
"""Asking again brings nothing; the same request may be bought anew."""


@dataclass(frozen=True)
class Job:
    """One row of the ledger. Times are seconds since 1970."""

    id: str
    provider: str
    model: str
    profile: str
    digest: str
    """Of the request and its picture: see request.request_digest."""
    state: State = State.NEW
    remote_id: str = ""
    sent: bool = False
    """Whether the last byte of the paid request may have left this machine."""
    created: float = 0.0
    submitted: float = 0.0
    updated: float = 0.0
    price: float | None = None
    """In US dollars, as quoted or as the provider told; None when nobody says."""
    price_source: str = ""
    image_mark: str = ""
    """SHA-256 of the link that the picture has at the provider: tells a lost job apart from others."""
    result: str = ""
    """Path of the finished file."""
    error_kind: str = ""
    error: str = ""
    summary: dict[str, object] = field(default_factory=dict)
    """What was asked, for people: prompt, size, frames; no key, no picture, no link's query."""

    @property
    def short_id(self) -> str:
        """Enough of the id to tell it apart by eye."""
        return self.id[:8]
