"""What a clip will cost: by the provider's own pricing call, else by the table beside the model."""

from __future__ import annotations

from typing import Any

from .client import Client
from .errors import Kind, RemoteError
from .model import PRICES_READ
from .plan import Plan


def table_price(plan: Plan) -> tuple[float | None, str]:
    """US dollars by the table, and where that was read; None and "" where the table has no price."""
    rate = plan.model.rates.get(plan.clip.resolution)
    return (None, "") if rate is None else (rate.of(plan.billed_seconds), f"{rate.source}; prices of {PRICES_READ}")


async def asked_price(plan: Plan, body: dict[str, Any], client: Client) -> float | None:
    """US dollars by the provider, None when it does not say. body: the paid request's. Raises RemoteError for a key or
    a balance that will not do."""
    try:
        return await client.converse(client.adapter.price(plan, body))
    except RemoteError as error:
        if error.kind in (Kind.AUTH, Kind.QUOTA):
            raise
        return None
