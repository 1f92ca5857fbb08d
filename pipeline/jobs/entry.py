"""One entry of the list of jobs, and how a job of the ledger becomes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.names import shown_in
from ..remote.job import ENDED, Job, JobState
from ..remote.poll import queue_position
from ..remote.providers import PROVIDERS


@dataclass(frozen=True)
class JobEntry:
    """A clip, remote or local; its fields are the JSON that the canvas gets. Times are seconds since 1970."""

    id: str
    """Id of the ledger's job, or of the run."""
    remote: bool
    """True for a job of the ledger."""
    state: str
    """A value of JobState."""
    created: float
    began: float | None = None
    """When the job was submitted, or the run began."""
    ended: float | None = None
    run: str | None = None
    """The run of this server, in the queue or at work, that makes the clip or waits for it; None for none."""
    provider: str = ""
    """Its title; "" for a local clip."""
    model: str = ""
    prompt: str = ""
    error: str = ""
    file: dict[str, str] | None = None
    """As /view names it."""
    workflow: bool = True
    """True when the workflow that made it is known."""
    progress: dict[str, Any] | None = None
    """Progress of a local run at work: node (a node type), value, max."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Node id -> node type of a local run that has not ended."""
    sent: bool = False
    """True when the paid request may have left this machine."""
    cancels: bool = True
    """True when stopping ends the job; False where the provider has no such call."""
    own_server: bool = False
    """True for a job on a server of the user's own: nothing is paid there, and it is never made twice."""
    place: int | None = None
    """In the provider's queue, 0 being next."""
    price: float | None = None
    """US dollars."""
    price_source: str = ""


def remote_entry(job: Job, run: str | None, workflow: bool, error: str, output: Path) -> JobEntry:
    """Return the entry of a job.

    run: the one that waits for it now. error: of the run that did last, for a job without one of its own. output:
    ComfyUI's output folder, outside of which no file is shown.
    """
    provider, ended = PROVIDERS.get(job.provider), job.state in ENDED
    return JobEntry(
        id=job.id, remote=True, state=job.state.value, created=job.created, began=job.submitted or None,
        ended=job.updated if ended else None, run=None if ended else run, workflow=workflow,
        provider=provider.title if provider else job.provider, model=job.model,
        prompt=str(job.summary.get("prompt", "")), error="" if job.state == JobState.DONE else job.error or error,
        file=_shown(Path(job.result), output) if job.result else None, sent=job.sent or bool(job.remote_id),
        cancels=provider is not None and provider.cancel(job.model, job.remote_id) is not None,
        own_server=provider is not None and provider.own_server,
        place=queue_position(job.id) if run and job.state == JobState.QUEUED else None, price=job.price,
        price_source=job.price_source)


def request_of_job(job: Job) -> dict[str, object]:
    """Return what was asked, for people and scripts; the ledger holds no key and no signed link."""
    return {"provider": job.provider, "model": job.model, **job.summary}


def _shown(path: Path, output: Path) -> dict[str, str] | None:
    return shown_in(output, path) if path.is_file() else None
