"""One line of the list of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A clip, remote or local; its fields are the JSON that the canvas gets. Times are seconds since 1970."""

    id: str
    """Of the ledger's job, or of the run."""
    remote: bool
    """Whether it is a job of the ledger."""
    state: str
    """One of State's values."""
    created: float
    began: float | None = None
    """When it was submitted, or its run began."""
    ended: float | None = None
    run: str | None = None
    """The run of this server that makes it or waits for it, in the queue or at work; None when none does."""
    provider: str = ""
    """Its title; "" for a local clip."""
    model: str = ""
    prompt: str = ""
    error: str = ""
    file: dict[str, str] | None = None
    """As /view names it."""
    workflow: bool = True
    """Whether the workflow that made it is known."""
    progress: dict[str, Any] | None = None
    """Of a local run at work: node (a node type), value, max."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Of a local run that is not over: node id -> node type."""
    sent: bool = False
    """Whether the paid request may have left this machine."""
    cancels: bool = True
    """Whether stopping it ends it; False where the provider has no such call."""
    place: int | None = None
    """In the provider's queue, 0 for the next one."""
    price: float | None = None
    """US dollars."""
    price_source: str = ""
