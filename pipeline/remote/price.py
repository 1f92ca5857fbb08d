"""The price of a planned clip: by the provider's pricing call, else by the table beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .client import ProviderClient
from .errors import ErrorKind, RemoteError
from .model import PRICES_READ
from .options import check_options
from .plan import Plan
from .provider import Provider

SAMPLE_PROMPT = "A clip."
SAMPLE_IMAGE = "https://picture.invalid/picture.png"


def full_body(provider: Provider, plan: Plan, image_url: str, last_image_url: str = "") -> dict[str, Any]:
    """Return the parameters of the paid request, with the links of the first picture and of the last, if there is one.

    Raises RemoteError (VALIDATION) for an option that is a parameter of the request's own.
    """
    body = provider.body(plan, image_url)
    check_options(plan.options, {*body, plan.model.last_image, "negative_prompt", "loras"})
    body = {**body, **plan.options}
    return {**body, plan.model.last_image: last_image_url} if plan.last_image else body


def sample_body(plan: Plan, client: ProviderClient) -> dict[str, Any]:
    """Return the paid request's body without picture, prompts and seed: all that its price and schema need."""
    clip = replace(plan.clip, prompt=SAMPLE_PROMPT, negative_prompt=plan.clip.negative_prompt and SAMPLE_PROMPT, seed=0)
    return full_body(client.provider, replace(plan, clip=clip), SAMPLE_IMAGE, SAMPLE_IMAGE)


async def find_price(plan: Plan, body: dict[str, Any], client: ProviderClient, own: Mapping[str, float],
                     ) -> tuple[float | None, str]:
    """Return the price in US dollars and its source: the provider, the table beside the model, or the user.

    own: the user's prices, see Settings.
    """
    price = await quoted_price(plan, body, client)
    return table_price(plan, own) if price is None else (price, f"quoted by {client.provider.title}")


async def quoted_price(plan: Plan, body: dict[str, Any], client: ProviderClient) -> float | None:
    """Return the price in US dollars by the provider's pricing call; None when it does not say.

    body: of sample_body. Raises RemoteError for a key or a balance that is refused.
    """
    try:
        return await client.run(client.provider.price(plan, body))
    except RemoteError as error:
        if error.kind in (ErrorKind.AUTH, ErrorKind.QUOTA):
            raise
        return None


def table_price(plan: Plan, own: Mapping[str, float]) -> tuple[float | None, str]:
    """Return the price in US dollars, by the table beside the model or by the user, and its source.

    (None, "") without one, and for a request with options, of which the table knows nothing.
    """
    price = None if plan.options else plan.model.prices.get(plan.clip.resolution)
    if price is None:
        known = own.get(plan.model_name)
        return (None, "") if known is None else (known, "estimated in your settings")
    return price.usd(plan.billed_seconds), f"{price.source}; prices of {PRICES_READ}"
