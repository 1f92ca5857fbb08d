"""From an accepted job to its file: poll it, download the clip, and cancel it when the user presses Stop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..http.threads import in_thread
from . import ui_names
from .bill import BILLED, bill_of_end, read_bill_later
from .client import ProviderClient
from .context import RemoteContext
from .errors import RETRYABLE, ErrorKind, RemoteError, RunEndedError
from .job import OVER, Job, JobState
from .provider import JobStatus
from .result import fetch_clip

DOWNLOADS = 4
"""Tries to download a finished clip before the run ends."""
LONGEST_POLL = 180.0
"""Seconds that one poll and the wait before it can take at most."""
QUEUED_LONGEST = 6 * 3600.0
"""Seconds in a provider's queue after which a job is no longer waited for."""
MISSING, MISSING_SECONDS = 3, 60.0
"""Polls in a row, and seconds, for which a provider must not know a job before it is lost."""
FILE_LASTS = 3600.0
"""Seconds after which a file that is not there is gone; before, its host may not have it yet."""
LINK_LASTS = 24 * 3600.0
"""Seconds after which a link that is refused, and its renewal too, is taken for a clip that is gone."""
AFTER_CANCEL = (0.0, 1.0, 2.0)
"""Seconds before each poll after a cancel; the user waits for them."""
ENDINGS = {JobState.FAILED: "could not make the clip of", JobState.CANCELED: "cancelled", JobState.LOST: "lost"}
_queue_positions: dict[str, int] = {}


def queue_position(job_id: str) -> int | None:
    """Return a job's place in its provider's queue by the last poll of this process, 0 being next; None for none."""
    return _queue_positions.get(job_id)


async def poll_job(job: Job, client: ProviderClient, context: RemoteContext) -> Job:
    """Wait for an accepted job and download its clip; return it as done, with the path of the file.

    Raises RemoteError; the interrupt that context.stop raises, after cancelling the job where the provider can. Any
    other end leaves the job as it is, to be resumed: the clip may still be wanted.
    """
    if job.state == JobState.DONE:
        if Path(job.result).is_file():
            return job
        job = context.ledger.reopen(job, state=JobState.RUNNING)
    try:
        status = await _poll_until_finished(job, client, context)
        if status.warnings:
            job = context.ledger.update(job, summary={**job.summary, "warnings": status.warnings})
        job = await _download(context.ledger.update(job, state=JobState.DOWNLOADING), status.url, client, context)
        read_bill_later(job, client, context)
        return job
    except RunEndedError:
        context.show_text(f"The run has ended. {client.provider.title} continues the job{_billed(client)}. "
                          f"{_how_to_resume(job)}")
        raise
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException:  # the host's interrupt
        await _cancel(job, client, context)
        raise


@dataclass
class _Patience:
    """How long a job has been waited for, in seconds of its provider's work; a machine that sleeps does not wait."""

    deadline: float
    """Longest `worked`."""
    queue_deadline: float
    """Longest `queued`."""
    outage: float
    """Longest `out`."""
    worked: float = 0.0
    """Without the time in the queue, which is nobody's fault."""
    queued: float = 0.0
    """In the queue."""
    out: float = 0.0
    """Since the last usable answer."""
    answered: float = field(default_factory=time.time)
    """Time of the last usable answer, in seconds since 1970."""
    trouble: RemoteError | None = None
    """Error of the last poll; None when it was answered."""
    looked: float = field(default_factory=time.monotonic)

    def note(self, state: JobState, trouble: RemoteError | None) -> None:
        """Add the time since the last call. state: by the last usable answer."""
        now = time.monotonic()
        # On some systems the clock goes on while a laptop sleeps.
        passed = min(now - self.looked, LONGEST_POLL)
        self.looked = now
        self.out = self.out + passed if trouble else 0.0
        if trouble is None:
            self.answered = time.time()
        if state != JobState.QUEUED or trouble:
            self.worked += passed
        else:
            self.queued += passed
        self.trouble = trouble

    @property
    def is_over(self) -> bool:
        return self.worked > self.deadline or self.queued > self.queue_deadline

    @property
    def is_outage(self) -> bool:
        return self.trouble is not None and self.out > self.outage


async def _poll_until_finished(job: Job, client: ProviderClient, context: RemoteContext) -> JobStatus:
    """Return the status of the finished job. Raises RemoteError when it ends otherwise or takes too long."""
    title, timeouts = client.provider.title, client.timeouts
    deadline = client.provider.work_seconds if timeouts.deadline is None else timeouts.deadline
    patience = _Patience(deadline * timeouts.pace, QUEUED_LONGEST * timeouts.pace, timeouts.outage * timeouts.pace)
    polled, asked, missing = 0, 0.0, 0
    status = JobStatus(job.state)
    fresh = time.time() - job.submitted < timeouts.polls[0]
    # The loop itself is the retry, so that the user reads of trouble at once.
    once = replace(client, timeouts=replace(timeouts, attempts=1))
    while True:
        if polled or fresh:
            await context.wait_for_wakeup(job.id, max(timeouts.before_poll(polled), asked * timeouts.pace),
                                          partial(_show_status, status, patience, job, client, context))
        polled += 1
        try:
            status, asked, missing = await _poll(job, once), 0.0, 0
            patience.note(status.state, None)
        except RemoteError as error:
            asked = error.retry_after or 0.0
            patience.note(status.state, error)
            missing = missing + 1 if error.kind == ErrorKind.LOST else 0
            if missing >= MISSING and patience.out > MISSING_SECONDS * timeouts.pace:
                status = JobStatus(JobState.LOST, error_kind=ErrorKind.LOST, message=str(error))
            elif not missing and (error.kind not in RETRYABLE or patience.is_outage):
                raise RemoteError(error.kind, f"{error} The job {job.short_id} continues there: run again to wait for "
                                  f"it, or give it up in the Jobs tab.") from None
        _note_queue_position(job.id, status.queue_position)
        if client.provider.own_server and context.waits_here(job.remote_id):
            raise await _end_waiting_for_itself(job, once, context)
        if status.price and status.price > 0:
            context.ledger.update(job, price=status.price, price_source=f"{BILLED} {title}")
        if status.state == JobState.DOWNLOADING:
            return status
        if status.state in OVER:
            why = status.message.rstrip(".") or "no reason given"
            sentence = f"{title} {ENDINGS[status.state]} the job {job.short_id}: {why}."
            context.ledger.update(job, state=status.state, error_kind=status.error_kind.value, error=sentence,
                                  **bill_of_end(status, title))
            read_bill_later(job, client, context)
            raise RemoteError(status.error_kind, sentence)
        job = context.ledger.update(job, state=status.state)
        if patience.is_over:
            context.ledger.update(job, state=JobState.TIMED_OUT)
            minutes = (patience.worked + patience.queued) / timeouts.pace / 60
            raise RemoteError(ErrorKind.TIMEOUT, f"{title} has not finished the job {job.short_id} after "
                              f"{minutes:.0f} minutes. It continues there: run again, or resume it with the id "
                              f"{job.short_id}.")


async def _end_waiting_for_itself(job: Job, client: ProviderClient, context: RemoteContext) -> RemoteError:
    """Cancel a job that waits in the queue for the run that waits for it; return the error."""
    title = client.provider.title
    with suppress(RemoteError):
        await client.send(client.provider.cancel(job.model, job.remote_id))
    sentence = (f"The address of {title} is this ComfyUI itself, which would wait for its own run forever. Set the "
                f"address of the other machine in {ui_names.KEYS}, or use Wan 2.2 Sampler.")
    context.ledger.update(job, state=JobState.CANCELED, error_kind=ErrorKind.VALIDATION.value, error=sentence)
    return RemoteError(ErrorKind.VALIDATION, sentence)


async def _poll(job: Job, client: ProviderClient) -> JobStatus:
    """Return a job's status; its last one while the provider need not know it yet. Raises RemoteError."""
    try:
        return await client.run(client.provider.poll(job.model, job.remote_id))
    except RemoteError as error:
        young = time.time() - job.submitted < client.provider.grace_seconds
        if young and error.kind in (ErrorKind.LOST, ErrorKind.VALIDATION):  # it does not know the job yet
            return JobStatus(job.state)
        raise


def _note_queue_position(job_id: str, position: int | None) -> None:
    if position is None:
        _queue_positions.pop(job_id, None)
    else:
        _queue_positions[job_id] = position


def _show_status(status: JobStatus, patience: _Patience, job: Job, client: ProviderClient,
                 context: RemoteContext) -> None:
    words = {JobState.QUEUED: "queued", JobState.RUNNING: "running"}
    position = status.queue_position
    place = "" if position is None else f", place {position + 1} in the queue"
    message = f" ({status.message})" if status.message else ""
    seconds = max(0, round(time.time() - job.submitted))
    word = words.get(status.state, status.state.value)
    lines = [f"{client.provider.title}: {word}{place}{message}, {seconds} s"]
    if patience.trouble is not None:
        at = time.strftime("%H:%M:%S", time.localtime(patience.answered))
        lines.append(f"No answer since {at}, asking on: {patience.trouble}")
    context.show_text("\n".join(lines))


async def _download(job: Job, link: str, client: ProviderClient, context: RemoteContext) -> Job:
    """Download the clip, with retries and, once, a fresh link; return the job as done. Raises RemoteError."""
    title = client.provider.title
    context.show_text(f"{title}: downloading the clip.")
    context.results.mkdir(parents=True, exist_ok=True)
    path = context.results / f"{job.provider}_{job.short_id}.mp4"
    tried, renewed = 0, False
    while True:
        try:
            await in_thread(partial(fetch_clip, link, path, client.policy, client.timeouts.download,
                                    context.check_clip), context.wait)
            return context.ledger.update(job, state=JobState.DONE, result=str(path), error="", error_kind="")
        except RemoteError as error:
            tried += 1
            refused = error.kind == ErrorKind.DOWNLOAD_EXPIRED
            if (refused or error.kind == ErrorKind.LOST) and not renewed:
                renewed = True
                with suppress(RemoteError):  # the old link may work a little later
                    link = (await _poll(job, client)).url or link
                continue
            age = time.time() - job.submitted
            if (error.kind == ErrorKind.LOST and age > FILE_LASTS) or (refused and age > LINK_LASTS):
                context.ledger.update(job, state=JobState.LOST, error_kind=error.kind.value, error=str(error))
                raise RemoteError(error.kind, f"{error} {title} keeps clips for a short time only, and the clip of the "
                                  f"job {job.short_id} is gone.") from None
            if error.kind not in (*RETRYABLE, ErrorKind.INTEGRITY, ErrorKind.LOST) or tried >= DOWNLOADS:
                paid = "" if client.provider.own_server else "paid and "
                raise RemoteError(error.kind, f"{error} The clip of the job {job.short_id} is {paid}still at "
                                  f"{title}: run again to download it.") from None
            await context.wait(client.timeouts.before_retry(tried, error.retry_after))


async def _cancel(job: Job, client: ProviderClient, context: RemoteContext) -> None:
    """Cancel the job at the provider, where that is possible, and show the user how it stands.

    Only a poll afterwards counts: providers acknowledge a cancel that comes too late, and a clip that is paid must not
    be bought again.
    """
    title, again, billed = client.provider.title, _how_to_resume(job), _billed(client)
    may_bill = " It may be billed." if billed else ""
    if context.ledger.get(job.id).state == JobState.DOWNLOADING:
        context.show_text(f"Stopped. {title} has finished the job{billed}. {again}")
        return
    request = client.provider.cancel(job.model, job.remote_id)
    if request is None:
        context.show_text(f"Stopped waiting. {title} cannot cancel jobs: this one continues and is billed. {again}")
        return
    once = replace(client, timeouts=replace(client.timeouts, attempts=1), wait=asyncio.sleep)  # Stop was heard
    try:
        await once.send(request)
        status = await _status_after_cancel(job, once)
    except RemoteError as error:
        context.show_text(f"Stopped waiting, but the job could not be cancelled: {error}{may_bill} {again}")
        return
    if status.state in OVER:
        context.ledger.update(job, state=JobState.CANCELED, error="cancelled by the user",
                              **bill_of_end(status, title))
        all_the_same = "" if status.unbilled else f" {title} may bill it all the same."
        context.show_text(f"{title}: the job {job.short_id} is cancelled.{all_the_same}")
    elif status.state == JobState.DOWNLOADING:
        context.show_text(f"Stopped. {title} had finished the job before it could be cancelled{billed}. {again}")
    else:
        context.show_text(f"Stopped waiting. {title} was asked to cancel the job and is still running it.{may_bill} "
                          f"{again}")


async def _status_after_cancel(job: Job, client: ProviderClient) -> JobStatus:
    """Return the job's status once the provider had a moment to note its end."""
    for seconds in AFTER_CANCEL:
        await asyncio.sleep(seconds * client.timeouts.pace)
        status = await client.run(client.provider.poll(job.model, job.remote_id))
        if status.state == JobState.DOWNLOADING or status.state in OVER:
            break
    return status


def _billed(client: ProviderClient) -> str:
    """Return ", and it is billed" where a job that goes on costs something."""
    return "" if client.provider.own_server else ", and it is billed"


def _how_to_resume(job: Job) -> str:
    return f"Resume it with the id {job.short_id}, or run again."
