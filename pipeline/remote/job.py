"""A remote job: one clip, paid at most once, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class JobState(str, Enum):
    """The state of a job, in the order of its life; a job never returns from its end. The values are stored."""

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
    """We no longer wait; the provider still has the job, and it can be resumed."""
    LOST = "lost"
    SUBMIT_UNKNOWN = "submit unknown"


UNSENT = (JobState.NEW, JobState.UPLOADING)
"""The paid request has not left."""
OVER = (JobState.FAILED, JobState.CANCELED, JobState.LOST)
"""The job brings no clip; the same request may be bought anew."""
ENDED = (*OVER, JobState.DONE)


@dataclass(frozen=True)
class Job:
    """A row of the ledger, field by field. Times are seconds since 1970."""

    id: str
    provider: str
    model: str
    profile: str
    digest: str
    """Of the request and its picture: see request.request_digest."""
    state: JobState = JobState.NEW
    remote_id: str = ""
    """The provider's own id; "" as long as it is not known."""
    sent: bool = False
    """Whether the last byte of the paid request may have left this machine."""
    created: float = 0.0
    submitted: float = 0.0
    updated: float = 0.0
    price: float | None = None
    """US dollars, quoted or billed; None when not known."""
    price_source: str = ""
    image_mark: str = ""
    """SHA-256 of the link that the picture has at the provider: identifies the job in the provider's list."""
    result: str = ""
    """Path of the finished file."""
    error_kind: str = ""
    error: str = ""
    summary: dict[str, object] = field(default_factory=dict)
    """The request for people to read: prompt, size, frames; no key, no picture, no link's query."""

    @property
    def unsent(self) -> bool:
        """Whether the paid request of this job has not left: it was never begun, or its program ended before."""
        return self.state in UNSENT or (self.state == JobState.SUBMITTING and not self.sent)

    def estimate(self) -> dict[str, object]:
        """Return the fields of the price as it was before it was set to 0, for a job that is found again; or none."""
        if self.price or "estimate" not in self.summary:
            return {}
        return {"price": self.summary["estimate"], "price_source": "estimate"}

    @property
    def short_id(self) -> str:
        """The first 8 characters of the id, which users see and may give back."""
        return self.id[:8]
