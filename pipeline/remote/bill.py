"""The bill of a job: what its provider charges, read again until it stands."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

from .client import ProviderClient
from .context import RemoteContext
from .errors import RemoteError
from .job import Job, JobState
from .provider import JobStatus


def bill_of_end(status: JobStatus, title: str) -> dict[str, object]:
    """Return the ledger's fields on the bill of a job that ended without a clip; title: of its provider."""
    if status.price and status.price > 0:
        return {"price": status.price, "price_source": f"billed by {title}"}
    if status.state == JobState.LOST:
        return {}  # what became of it is not known, and it may well be billed
    if status.unbilled:
        return {"price": 0.0, "price_source": f"not billed by {title}"}
    return {"price_source": f"estimate: {title} may bill a job that ends so"}


def read_bill_later(job: Job, client: ProviderClient, context: RemoteContext) -> None:
    """Read the bill in a thread of its own where it comes only some minutes after the end of the job.

    A bill that never comes, or that ComfyUI's end prevents from being read, leaves the estimate.
    """
    if client.provider.bill_after and not context.ledger.get(job.id).price_source.startswith("billed"):
        alone = replace(client, timeouts=replace(client.timeouts, attempts=1), wait=asyncio.sleep)
        threading.Thread(target=lambda: asyncio.run(_read_bill(job, alone, context)), name=f"wan22 bill {job.short_id}",
                         daemon=True).start()


async def _read_bill(job: Job, client: ProviderClient, context: RemoteContext) -> None:
    provider, ended = client.provider, time.monotonic()
    for seconds in provider.bill_after:
        await asyncio.sleep(max(0.0, ended + seconds * client.timeouts.pace - time.monotonic()))
        try:
            context.check_sending_allowed()
            status = await client.run(provider.poll(job.model, job.remote_id))
            if status.price and status.price > 0:
                context.ledger.note_bill(job, status.price, f"billed by {provider.title}")
                return
        except RemoteError:  # the next look may find it
            continue
