"""From a planned clip to an accepted job: check, quote, upload, and the one request that costs money.

What a clip will cost: by the provider's own pricing call, else by the table beside the model.

A job whose submit had no answer, looked for in the provider's own history: sending it again could cost twice."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

from ..http.errors import redact
from .client import Client
from .context import Desk
from .errors import PASSING, Kind, NotAcceptedError, RemoteError
from .job import Job, State
from .ledger import check_limits
from .plan import PRICES_READ, Plan
from .provider import Candidate

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

STAND_IN = "A clip."
PICTURE = "https://picture.invalid/picture.png"


def draft(plan: Plan, client: Client) -> dict[str, Any]:
    """The paid request as its price and its schema need it: without the picture, the prompts and the seed."""
    clip = replace(plan.clip, prompt=STAND_IN, negative_prompt=plan.clip.negative_prompt and STAND_IN, seed=0)
    return client.adapter.body(replace(plan, clip=clip), PICTURE)


def table_price(plan: Plan) -> tuple[float | None, str]:
    """US dollars by the table, and where that was read; None and "" where the table has no price."""
    rate = plan.model.rates.get(plan.clip.resolution)
    return (None, "") if rate is None else (rate.of(plan.billed_seconds), f"{rate.source}; prices of {PRICES_READ}")


async def asked_price(plan: Plan, body: dict[str, Any], client: Client) -> float | None:
    """US dollars by the provider, None when it does not say. body: of draft(). Raises RemoteError for a key or a
    balance that will not do."""
    try:
        return await client.converse(client.adapter.price(plan, body))
    except RemoteError as error:
        if error.kind in (Kind.AUTH, Kind.QUOTA):
            raise
        return None


async def buy(job: Job, plan: Plan, picture: bytes, content_type: str, client: Client, desk: Desk) -> Job:
    """Submit the job and return it accepted, or of unknown outcome when even the provider's history does not tell.

    Raises NotAcceptedError, with the job noted as failed, when nothing was bought; what desk.stop raises.
    """
    adapter = client.adapter
    try:
        desk.check_allowed()  # it may have waited for hours
        desk.say(f"{adapter.title}: asking for the price.")
        unsent = draft(plan, client)
        # What these cannot find out, the upload or the table tells: a dead network is not waited for three times.
        brief = replace(client, patience=replace(client.patience, attempts=min(2, client.patience.attempts)))
        await _check_fields(plan, unsent, brief)
        price, source = await _quote(plan, unsent, brief)
        # So that the picture stays here when it cannot be bought; what counts is about_to_spend, at the end.
        check_limits(price, desk.ledger.spent(but=job.id), desk.limits, desk.settings().budget)
        desk.check_allowed()  # asking for the price may have taken long
        desk.check_wanted()
        desk.say(f"{adapter.title}: sending the picture.")
        job = desk.ledger.update(job, state=State.UPLOADING)
        image_url = await client.converse(adapter.upload(picture, content_type))
        body = adapter.body(plan, image_url)
        cost = "the price is not known" if price is None else f"${price:.3f} ({source})"
        desk.say(f"{adapter.title}: submitting, {cost}.")
        job = desk.ledger.update(job, image_mark=hashlib.sha256(image_url.encode()).hexdigest(),
                                 summary={**job.summary, "sent": _without_links(body)})
        settings = desk.settings()
        desk.check_wanted()  # the last moment at which Stop costs nothing
        job = desk.ledger.about_to_spend(job, price, source, desk.limits, settings.budget)
        webhook = f"{settings.public_url}/wan22/webhook/{adapter.name}/{job.id}" if settings.public_url else ""
        await client.buy(
            adapter.submit(plan, body, webhook),
            note_sent=lambda sent: desk.ledger.update(job, sent=sent),
            note_accepted=lambda remote_id: desk.ledger.update(job, remote_id=remote_id, state=State.QUEUED))
        return desk.ledger.get(job.id)
    except RemoteError as error:
        noted = isinstance(error, NotAcceptedError)
        if error.kind == Kind.SUBMIT_UNKNOWN or (desk.ledger.get(job.id).sent and not noted):  # our disk failed us then
            job = desk.ledger.update(job, state=State.SUBMIT_UNKNOWN, error_kind=error.kind.value, error=str(error))
            return await search(job, client, desk)
        desk.ledger.update(job, state=State.FAILED, error_kind=error.kind.value, error=str(error))
        raise error if noted else NotAcceptedError(error) from None
    except BaseException:
        now = desk.ledger.get(job.id)
        if not now.sent:
            desk.ledger.update(now, state=State.CANCELED, error="stopped before it was submitted")
        raise


def _without_links(value: Any) -> Any:
    """What is sent, with every link cut down to what names the file: pictures' and LoRAs' links may be signed."""
    if isinstance(value, dict):
        return {name: _without_links(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_links(part) for part in value]
    return redact(value) if isinstance(value, str) and value.startswith("https://") else value


async def _check_fields(plan: Plan, body: dict[str, Any], client: Client) -> None:
    """Compare what would be sent with the schema that the provider publishes today, if it does."""
    try:
        known = await client.converse(client.adapter.fields(plan.model_name))
    except RemoteError as error:
        if error.kind == Kind.LOST:
            raise RemoteError(Kind.VALIDATION, f"{client.adapter.title} no longer offers {plan.model_name}. Choose "
                              "another model. Nothing was bought.") from None
        if error.kind not in (*PASSING, Kind.PROVIDER_FAILED):
            raise
        return  # the paid request will tell
    unknown = sorted(set(body) - known) if known else []
    if unknown:
        raise RemoteError(Kind.VALIDATION, f"{client.adapter.title} has changed {plan.model_name}: it no longer takes "
                          f"{', '.join(unknown)}. Update this pack, or choose another model. Nothing was bought.")


async def _quote(plan: Plan, body: dict[str, Any], client: Client) -> tuple[float | None, str]:
    """US dollars and who says so: the provider, else the table beside the model."""
    price = await asked_price(plan, body, client)
    return table_price(plan) if price is None else (price, f"quoted by {client.adapter.title}")
