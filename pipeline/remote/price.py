"""The price of a planned clip: by the provider's pricing call, else by the table beside the model, else by estimates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .budget import Cost
from .client import ProviderClient
from .errors import ErrorKind, RemoteError
from .model import PRICES_READ
from .options import check_options
from .plan import Plan
from .provider import Provider
from .settings import Settings

SAMPLE_PROMPT = "A clip."
SAMPLE_IMAGE = "https://picture.invalid/picture.png"
OWN_SERVER = "on a server of your own"
"""Source of the price 0."""
WITH_OPTIONS = 2.0
"""Times the listed price that a clip with options may cost: interpolation, the dearest of them, adds up to a half."""


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


async def find_price(plan: Plan, body: dict[str, Any], client: ProviderClient, settings: Settings) -> Cost:
    """Return the cost by the provider's pricing call, else as `listed_cost` does. Raises as `quoted_price` does."""
    price = await quoted_price(plan, body, client)
    return listed_cost(plan, settings) if price is None else Cost(price, f"quoted by {client.provider.title}")


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


def listed_cost(plan: Plan, settings: Settings) -> Cost:
    """Return the cost by the user's own price, the table beside the model, or the estimates there.

    The table knows nothing of options: with them its price is the lowest of the estimates.
    """
    model, size, seconds = plan.model, plan.clip.resolution, plan.billed_seconds
    if model.free:
        return Cost(0.0, OWN_SERVER)
    price = model.prices.get(size)
    if price is not None and not plan.options:
        return Cost(price.usd(seconds), f"{price.source}; prices of {PRICES_READ}")
    if plan.model_name in settings.prices:
        return Cost(settings.prices[plan.model_name], "estimated in your settings")
    low, high = (price, price) if price is not None else model.estimates.get(size, (None, None))
    if low is None or high is None:
        return Cost(None)
    lowest, usd = low.usd(seconds), high.usd(seconds) * (WITH_OPTIONS if plan.options else 1.0)
    source = f"the highest of the estimates, ${lowest:.3f} to ${usd:.3f}; prices of {PRICES_READ}"
    return Cost(usd, source, None if model.id in settings.accepted_estimates else lowest)
