"""A job whose submit had no answer, looked for in the provider's own history: sending it again could cost twice."""

from __future__ import annotations

import hashlib
import time

from .adapter import Candidate
from .client import Client
from .desk import Desk
from .errors import Kind, RemoteError
from .job import Job, State

CLOCKS = 30.0
"""Seconds by which a provider's clock may differ from ours."""
WINDOW = 300.0
"""Seconds after the submit within which a job without any other mark can be ours."""


async def search(job: Job, client: Client, desk: Desk) -> Job:
    """The job, accepted, when the provider's history holds exactly one that can be it.

    Raises RemoteError (SUBMIT_UNKNOWN) otherwise, with what the user can do.
    """
    title = client.adapter.title
    desk.say(f"{title}: whether it took the job {job.short_id} is not known; looking for it there.")
    end, tried = time.monotonic() + client.adapter.listed_after * client.patience.pace, 0
    while tried == 0 or time.monotonic() < end:
        if tried:
            await desk.wait(client.patience.before_poll(tried))
        tried += 1
        try:
            found = await client.converse(client.adapter.history(job.model, job.submitted - CLOCKS))
        except RemoteError as error:
            desk.say(str(error))
            continue
        if found is None:
            break
        ours = [one for one in found if _can_be(job, one) and not desk.ledger.owns(job.provider, one.remote_id)]
        if len(ours) == 1 and (ours[0].image_url is not None or not _others(job, desk)):
            return desk.ledger.reopen(job, remote_id=ours[0].remote_id, state=State.QUEUED, error="", error_kind="")
    raise RemoteError(Kind.SUBMIT_UNKNOWN, (
        f"Whether {title} took the job {job.short_id} is not known: the connection broke off after it was sent. It is "
        f"not sent again by itself, since that could cost twice. Look at your jobs on {title}'s site. If the clip is "
        f"there, give its id and {job.short_id} to Resume Remote Clip; if not, give the job up there, and run again."))


def _can_be(job: Job, one: Candidate) -> bool:
    if one.model != job.model:
        return False
    if one.image_url is not None:
        return hashlib.sha256(one.image_url.encode()).hexdigest() == job.image_mark
    return job.submitted - CLOCKS <= one.created <= job.submitted + WINDOW


def _others(job: Job, desk: Desk) -> list[Job]:
    """Other jobs of the same model and time that the history's only one could be just as well."""
    return [other for other in desk.ledger.jobs((State.SUBMIT_UNKNOWN, State.SUBMITTING))
            if other.id != job.id and (other.provider, other.model) == (job.provider, job.model)
            and abs(other.submitted - job.submitted) <= WINDOW + CLOCKS]
