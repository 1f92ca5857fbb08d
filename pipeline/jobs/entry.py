"""A job of the ledger as a line of the list.

One line of the list of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.names import shown_in
from ..remote.job import OVER, Job, State
from ..remote.poll import place_of
from ..remote.providers import ADAPTERS


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

ENDED = (*OVER, State.DONE)


def remote_entry(job: Job, run: str | None, workflow: bool, error: str, output: Path) -> Entry:
    """run: that waits for it now. error: of the run that did last, for a job that has none of its own.

    output: ComfyUI's output folder, outside of which no file is shown.
    """
    adapter, ended = ADAPTERS.get(job.provider), job.state in ENDED
    return Entry(
        id=job.id, remote=True, state=job.state.value, created=job.created, began=job.submitted or None,
        ended=job.updated if ended else None, run=None if ended else run, workflow=workflow,
        provider=adapter.title if adapter else job.provider, model=job.model,
        prompt=str(job.summary.get("prompt", "")), error="" if job.state == State.DONE else job.error or error,
        file=shown(Path(job.result), output) if job.result else None, sent=job.sent or bool(job.remote_id),
        cancels=adapter is not None and adapter.cancel(job.model, job.remote_id) is not None,
        place=place_of(job.id) if run and job.state == State.QUEUED else None, price=job.price,
        price_source=job.price_source)


def asked_of(job: Job) -> dict[str, object]:
    """What was asked, for people and scripts; the ledger holds no key and no signed link."""
    return {"provider": job.provider, "model": job.model, **job.summary}


def shown(path: Path, output: Path) -> dict[str, str] | None:
    """How the canvas asks for a file of the output folder; None for one that is not there."""
    return shown_in(output, path) if path.is_file() else None
