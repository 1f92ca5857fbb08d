"""From a planned clip to an accepted job: check, quote, upload, and the one request that costs money."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from ..download.errors import redact
from .client import Client
from .desk import Desk
from .errors import PASSING, Kind, NotAcceptedError, RemoteError
from .job import Job, State
from .ledger import check_limits
from .plan import Plan
from .price import asked_price, draft, table_price
from .search import search


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
