"""What a webhook has said of jobs: a hint to ask now, and nothing more."""

from __future__ import annotations

import threading

_waiting: set[str] = set()
_lock = threading.Lock()


def hint(job_id: str) -> None:
    """Somebody says that there is news of a job."""
    with _lock:
        _waiting.add(job_id)


def hinted(job_id: str) -> bool:
    """Whether there was a hint since the last call."""
    with _lock:
        found = job_id in _waiting
        _waiting.discard(job_id)
        return found
