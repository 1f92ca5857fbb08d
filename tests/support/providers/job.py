"""A job at a provider, and the script by which it goes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

FOREVER = 10**9


@dataclass(frozen=True)
class Script:
    """The course of a job."""

    queued: int = 1
    """Polls that find it waiting."""
    running: int = 1
    """Polls after those that find it running; FOREVER is a job that is stuck."""
    end: str = "done"
    """Its end: one of the server's `ends`."""
    missing: int = 0
    """Polls, the first of all, that find no such job (AtlasCloud's 404 after a submit)."""
    word: str | None = None
    """The status that it shows while it runs, in place of the provider's own word."""
    error: str | None = None
    """The provider's words when it fails, in place of this server's text."""
    frames: int | None = None
    """Frames of the clip, in place of what the inputs ask for."""
    expired: int = 0
    """Links to the clip, the first of all, that have expired (403); each poll after the end gives the next one."""
    deaf: bool = False
    """A cancel is acknowledged and does nothing."""
    silent: bool = False
    """The status does not say that the job failed; its result alone does (fal.ai)."""


@dataclass
class Job:
    """A job that was accepted."""

    id: str
    model: str
    inputs: dict[str, Any]
    price: float
    script: Script
    webhook: str | None = None
    invalid: list[dict[str, Any]] = field(default_factory=list)
    """Errors of the inputs, where the provider finds them only later (fal)."""
    polls: int = 0
    cancelled: bool = False
    cancels: int = 0
    """Number of times that its cancel was asked for."""
    deleted: bool = False
    looks: int = 0
    """Polls that found it finished."""
    link: str | None = None
    """The clip's latest link."""
    created: float = field(default_factory=time.time)
    """Seconds since 1970."""

    @property
    def created_at(self) -> str:
        """ISO 8601 in UTC, to the nanosecond as Go writes it."""
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.created))
        return f"{whole}.{int(self.created % 1 * 1e9):09d}Z"

    @property
    def phase(self) -> str:
        """missing, queued or running; otherwise how it ended."""
        if self.cancelled:
            return "cancelled"
        if 0 < self.polls <= self.script.missing:
            return "missing"
        left = self.polls - self.script.missing
        if self.polls == 0 or left <= self.script.queued:
            return "queued"
        return "running" if left <= self.script.queued + self.script.running else self.script.end

    @property
    def finished(self) -> bool:
        return self.phase not in ("missing", "queued", "running")
