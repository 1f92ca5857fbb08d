"""A job of the ledger as a line of the list."""

from __future__ import annotations

from pathlib import Path

from ..remote.job import OVER, Job, State
from ..remote.providers import ADAPTERS
from ..remote.queue_places import place_of
from ..shown_file import shown_in
from .entry import Entry

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
