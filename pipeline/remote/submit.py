"""From a planned clip to an accepted job: check, quote, upload, and the one request that costs money.

The order of the writes is what makes a clip paid at most once: the ledger holds the job before the request leaves, and
a job whose reply was lost is looked for in the provider's own history, because sending it again could cost twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..http.errors import redact
from ..http.threads import in_thread
from .bill import read_bills
from .budget import check_limits
from .catalogue import forget, published_fields
from .client import ProviderClient
from .context import RemoteContext
from .errors import RETRYABLE, ErrorKind, NotAcceptedError, RemoteError
from .job import Job, JobState
from .lora_hash import file_sha256
from .lora_links import with_files
from .plan import Plan
from .price import find_price, full_body, sample_body
from .provider import HistoryEntry
from .request import Picture

CLOCK_SKEW = 30.0
"""Seconds by which a provider's clock may differ from ours."""
SUBMIT_WINDOW = 300.0
"""Seconds after the submit within which a job that has no other mark can be ours."""


async def submit_job(job: Job, plan: Plan, pictures: Sequence[Picture], client: ProviderClient,
                     context: RemoteContext) -> Job:
    """Submit the job and return it as accepted.

    pictures: the first, and the last where the plan has one. A job that may have been accepted before is submitted
    again only to a provider that knows it by its idempotency key.
    Raises NotAcceptedError, the job stored as failed, when nothing was bought; RemoteError (SUBMIT_UNKNOWN) when even
    the provider's history does not tell; what context.stop raises.
    """
    provider, may_be_there = client.provider, job.sent
    try:
        context.check_sending_allowed()  # the job may have waited for hours
        plan = await with_files(plan, context.policy, client.wait)
        context.show_text(f"{provider.title}: asking for the price.")
        sample = sample_body(plan, client)
        # These need no persistence: the upload and the price table tell what they cannot find out.
        brief = replace(client, timeouts=replace(client.timeouts, attempts=min(2, client.timeouts.attempts)))
        await _check_fields(plan, sample, brief)
        await read_bills(brief, job.profile, context)
        cost = await find_price(plan, sample, brief, context.settings())
        # Early, so that the picture stays here when it cannot be bought; `authorize` below is what counts.
        check_limits(cost, context.ledger.spent(except_job=job.id), context.limits, context.settings().budget)
        context.check_sending_allowed()  # asking for the price may have taken long
        context.check_wanted()
        context.show_text(f"{provider.title}: uploading the picture.")
        job = context.ledger.update(job, state=JobState.UPLOADING)
        plan = await _with_uploaded_loras(plan, client, context)
        links = [await client.run(provider.upload(picture.data, picture.content_type)) for picture in pictures]
        image_url, body = links[0], full_body(provider, plan, *links)
        context.show_text(f"{provider.title}: submitting, {cost}.")
        job = context.ledger.update(job, image_mark=hashlib.sha256(image_url.encode()).hexdigest(),
                                    summary={**job.summary, "sent": _redacted(body), "estimate": cost.usd})
        settings = context.settings()
        context.check_wanted()  # the last moment at which Stop costs nothing
        job = context.ledger.authorize(job, cost, context.limits, settings.budget)
        calls_back = settings.public_url and provider.webhook is not None
        webhook = f"{settings.public_url}/wan22/webhook/{provider.name}/{job.id}" if calls_back else ""
        request = provider.submit(plan, body, webhook)
        if provider.idempotent:
            request = replace(request, headers={**request.headers, "Idempotency-Key": job.id})
        await client.submit(
            request,
            on_sent=lambda sent: context.ledger.update(job, sent=sent),
            on_accepted=lambda remote_id: context.ledger.update(job, remote_id=remote_id, state=JobState.QUEUED))
        return context.ledger.get(job.id)
    except RemoteError as error:
        refused = isinstance(error, NotAcceptedError)
        if refused and error.kind == ErrorKind.VALIDATION:
            forget()  # the model may have changed within the hour
        # It is also unknown when the disk failed between the request and its record.
        sent = may_be_there or (context.ledger.get(job.id).sent and not refused)
        if error.kind == ErrorKind.SUBMIT_UNKNOWN or sent:
            job = context.ledger.update(job, state=JobState.SUBMIT_UNKNOWN, error_kind=error.kind.value,
                                        error=str(error))
            return await recover_submit(job, client, context)
        context.ledger.update(job, state=JobState.FAILED, error_kind=error.kind.value, error=str(error))
        raise error if refused else NotAcceptedError(error) from None
    except BaseException:
        now = context.ledger.get(job.id)
        if not now.sent and not may_be_there:
            context.ledger.update(now, state=JobState.CANCELED, error="stopped before it was submitted")
        raise


async def _check_fields(plan: Plan, body: dict[str, Any], client: ProviderClient) -> None:
    """Compare the request with the schema that the provider publishes today. Raises RemoteError (VALIDATION)."""
    provider = client.provider
    try:
        known = await published_fields(client, plan.model_name)
    except RemoteError as error:
        if error.kind == ErrorKind.LOST:
            raise provider.model_gone(plan.model_name) from None
        if error.kind not in (*RETRYABLE, ErrorKind.PROVIDER_FAILED):
            raise
        if plan.options:
            raise
        return  # the paid request will tell
    if plan.options and not known:
        forget()
        raise RemoteError(ErrorKind.VALIDATION, f"{provider.title} does not say which parameters {plan.model_name} "
                          "takes, so the options cannot be checked. Clear them, or run again later. Nothing was "
                          "bought.")
    unknown = sorted(set(body) - known) if known else []
    if unknown:
        forget()  # the next run asks anew
    if strange := [name for name in unknown if name in plan.options]:
        raise RemoteError(ErrorKind.VALIDATION, f"{plan.model_name} has no {', '.join(strange)}. It takes "
                          f"{', '.join(sorted(known))}. Change the options. Nothing was bought.")
    if unknown:
        raise provider.fields_gone(plan.model_name, unknown)


async def _with_uploaded_loras(plan: Plan, client: ProviderClient, context: RemoteContext) -> Plan:
    """Return the plan with what stands for the LoRAs' files at the provider, which has each of them then."""
    sent = {}
    for source, path in plan.lora_files.items():
        context.show_text(f"{client.provider.title}: uploading the LoRA {path.name}, if it is not there.")
        sha256 = await in_thread(partial(file_sha256, path), context.wait)
        sent[source] = await client.run(client.provider.upload_lora(path, sha256))
    return replace(plan, loras=tuple((sent.get(link, link), scale, expert) for link, scale, expert in plan.loras))


def _redacted(value: Any) -> Any:
    """Return a request's body with redacted links: those of pictures and LoRAs may be signed."""
    if isinstance(value, dict):
        return {name: _redacted(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_redacted(part) for part in value]
    return redact(value) if isinstance(value, str) and value.startswith("https://") else value


async def recover_submit(job: Job, client: ProviderClient, context: RemoteContext) -> Job:
    """Look for a job without a reply in the provider's history; return it as accepted when exactly one entry fits.

    Raises RemoteError (SUBMIT_UNKNOWN) otherwise, with what the user can do.
    """
    title = client.provider.title
    context.show_text(f"{title}: no reply to the submit of the job {job.short_id}; looking for it in its "
                      "history.")
    end, tried = time.monotonic() + client.provider.history_delay * client.timeouts.pace, 0
    while tried == 0 or time.monotonic() < end:
        if tried:
            await context.wait(client.timeouts.before_poll(tried))
        tried += 1
        try:
            entries = await client.run(client.provider.history(job.model, job.submitted - CLOCK_SKEW))
        except RemoteError as error:
            context.show_text(str(error))
            if error.kind not in RETRYABLE:
                break
            continue
        if entries is None:
            break
        ours = [entry for entry in entries
                if _may_be(job, entry) and not context.ledger.has_remote_id(job.provider, entry.remote_id)]
        if len(ours) == 1 and (ours[0].image_url is not None or not _rivals(job, context)):
            return context.ledger.reopen(job, remote_id=ours[0].remote_id, state=JobState.QUEUED, error="",
                                         error_kind="")
    if client.provider.idempotent:
        raise RemoteError(ErrorKind.SUBMIT_UNKNOWN, f"It is not known whether {title} accepted the job {job.short_id}: "
                          f"{job.error or 'there was no answer.'} Run its workflow again: the clip is found there, "
                          "and not made a second time.")
    raise RemoteError(ErrorKind.SUBMIT_UNKNOWN, (
        f"It is not known whether {title} accepted the job {job.short_id}: the connection broke off after it was sent. "
        "It is not sent again by itself, because that could cost twice. Look at your jobs on the site of "
        f"{title}. If the clip is there, give its id and {job.short_id} to Resume Remote Clip; if not, give the job up "
        "there, and run again."))


def _may_be(job: Job, entry: HistoryEntry) -> bool:
    if entry.model != job.model:
        return False
    if entry.seed not in (None, job.summary.get("seed")):
        return False
    if entry.image_url is not None:
        return hashlib.sha256(entry.image_url.encode()).hexdigest() == job.image_mark
    return job.submitted - CLOCK_SKEW <= entry.created <= job.submitted + SUBMIT_WINDOW


def _rivals(job: Job, context: RemoteContext) -> list[Job]:
    """Return the other jobs of unknown outcome that an entry without a picture's link could be as well."""
    return [other for other in context.ledger.jobs((JobState.SUBMIT_UNKNOWN, JobState.SUBMITTING))
            if other.id != job.id and (other.provider, other.model) == (job.provider, job.model)
            and abs(other.submitted - job.submitted) <= SUBMIT_WINDOW + CLOCK_SKEW]
