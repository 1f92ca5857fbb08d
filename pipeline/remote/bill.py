"""The bill of a job: what its provider charges, read again until it stands."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

from .client import ProviderClient
from .context import RemoteContext
from .errors import ErrorKind, RemoteError
from .job import OVER, Job, JobState
from .provider import JobStatus

BILLED, NO_BILL = "billed by", "estimate: no bill came from"
"""Beginnings of Job.price_source of a job whose bill was read, and of one that has none long after its end."""
MOST = 20
"""Bills that are read before a purchase."""


def bill_of_end(status: JobStatus, title: str) -> dict[str, object]:
    """Return the ledger's fields on the bill of a job that ended without a clip; title: of its provider."""
    if status.price and status.price > 0:
        return {"price": status.price, "price_source": f"{BILLED} {title}"}
    if status.state == JobState.LOST:
        return {}  # what became of it is not known, and it may well be billed
    if status.unbilled:
        return {"price": 0.0, "price_source": f"not billed by {title}"}
    return {"price_source": f"estimate: {title} may bill a job that ends so"}


def read_bill_later(job: Job, client: ProviderClient, context: RemoteContext) -> None:
    """Read the bill in a thread of its own where it comes only some minutes after the end of the job.

    A bill that never comes leaves the estimate; one that ComfyUI's end kept from being read is read by `read_bills`.
    """
    if client.provider.bill_after and not context.ledger.get(job.id).price_source.startswith(BILLED):
        alone = replace(client, timeouts=replace(client.timeouts, attempts=1), wait=asyncio.sleep)
        threading.Thread(target=lambda: asyncio.run(_read_bill(job, alone, context)), name=f"wan22 bill {job.short_id}",
                         daemon=True).start()


async def _read_bill(job: Job, client: ProviderClient, context: RemoteContext) -> None:
    ended = time.monotonic()
    for seconds in client.provider.bill_after:
        await asyncio.sleep(max(0.0, ended + seconds * client.timeouts.pace - time.monotonic()))
        try:
            context.check_sending_allowed()
            if await _look(job, client, context):
                return
        except RemoteError:  # the next look may find it
            continue


async def read_bills(client: ProviderClient, profile: str, context: RemoteContext) -> None:
    """Read the bills of the last 24 hours that nobody has read, before the sum of the day decides on a purchase."""
    provider = client.provider
    if not provider.bill_after:
        return
    last = provider.bill_after[-1] * client.timeouts.pace
    for job in context.ledger.unbilled(provider.name, profile, (BILLED, NO_BILL))[:MOST]:
        old = time.time() - job.updated > last
        if job.state in OVER and old:
            continue  # what ended without a clip and has no bill by then has none
        try:
            if not await _look(job, client, context) and old:
                context.ledger.note_bill(job, job.price, f"{NO_BILL} {provider.title}")
        except RemoteError as error:
            if error.kind != ErrorKind.LOST:  # what it does not know any more keeps its estimate
                return  # the purchase itself will tell, and the next one looks again


async def _look(job: Job, client: ProviderClient, context: RemoteContext) -> bool:
    """Write a job's bill if it is there, and return whether it was. Raises RemoteError."""
    status = await client.run(client.provider.poll(job.model, job.remote_id))
    if not status.price or status.price <= 0:
        return False
    context.ledger.note_bill(job, status.price, f"{BILLED} {client.provider.title}")
    return True
