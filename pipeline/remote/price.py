"""What a clip will cost: by the provider's own pricing call, else by the table beside the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .client import Client
from .errors import Kind, RemoteError
from .model import PRICES_READ
from .plan import Plan

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
