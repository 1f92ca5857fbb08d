"""Quote a remote clip while its inputs are still being chosen: its price, and what of it will be left out.

Prices come from the tables beside the models. The provider's own pricing call is made only when the user lets things
leave the machine and has a key there, and gets the model and the length alone: no prompt, no picture, no LoRA.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..http.policy import OFFLINE_VARIABLE, JobTimeouts, policy_from_environment
from ..http.secrets import Secret
from ..node_inputs import NodeInputs
from ..request import ClipRequest
from .budget import Cost, Limits, check_limits
from .client import ProviderClient, open_client
from .errors import RemoteError
from .keys import DEFAULT_PROFILE, KeyStore, profile_fault
from .ledger import Ledger
from .model import PRICES_READ
from .plan import TRIM, Plan, check_takes_loras, plan_clip
from .price import SAMPLE_PROMPT, listed_cost, quoted_price, sample_body
from .providers import Target, find_target
from .request import check_request
from .run import check_strict
from .settings import local_only_error, read_settings

INPUTS = {"provider": str, "provider.model": str, "profile": str, "prompt": str, "negative_prompt": str,
          "resolution": str, "num_frames": int, "num_inference_steps": int, "guidance_scale": float, "max_cost": float,
          "max_cost_per_day": float, "longer_clips": str, "strict": bool, "loras": str,
          "last_image": str, "segments": str, "options": str, "ask": bool}
"""Inputs of the node, and `ask`: whether the provider may be asked. `loras`, `last_image` and `segments` are never more
than linked."""
SEGMENTS = "This is the price of the first clip. Each segment is bought too; the sum is checked before all of them."
PRICE_INPUTS = ("provider", "provider.model", "resolution", "num_frames")
"""Inputs that the price depends on."""
BRIEF = JobTimeouts(request=8.0, attempts=1)
"""A price that takes longer comes too late to be of use."""
MAX_AGE = 600.0
"""Seconds for which a provider's price is reused."""
MAX_CACHED = 64


@dataclass(frozen=True)
class Quote:
    """The answer to a node; its fields are the JSON of the route."""

    provider: str = ""
    model: str = ""
    """Its id."""
    price: float | None = None
    """US dollars."""
    estimates: tuple[float, float] | None = None
    """Where the price is not known: the lowest and the highest that it may be, in US dollars."""
    asked: bool = False
    """Whether the price is the provider's own; else it is from the table of `month`."""
    source: str = ""
    """Where the table was read."""
    month: str = PRICES_READ
    seconds: float = 0.0
    """Seconds that are bought."""
    notes: tuple[str, ...] = ()
    """What will be ignored or changed."""
    warnings: tuple[str, ...] = ()
    """Why the node would refuse to buy."""
    unknown: tuple[str, ...] = ()
    """Inputs that come from other nodes and that the price depends on: there is no price then."""


async def quote(inputs: NodeInputs, folder: Path) -> Quote:
    """Return the quote for a node's inputs. folder: the pack's own, with settings and keys.

    Raises RequestError or RemoteError where the run would end with the same sentence, whatever else is chosen.
    """
    if unknown := tuple(name for name in PRICE_INPUTS if name in inputs.linked):
        return Quote(unknown=unknown)
    values = inputs.values
    target = find_target(values.get("provider", ""), values.get("provider.model", ""),
                         values.get("profile", DEFAULT_PROFILE), values.get("options", ""))
    plan = _plan(target, inputs)
    notes = tuple(sentence for name, sentence in plan.changes.items() if name not in inputs.linked)
    notes = (SEGMENTS, *notes) if "segments" in inputs.linked else notes
    if values.get("strict"):
        check_strict(target.provider, notes)
    key, warnings = await asyncio.to_thread(_usable_key, target, inputs, folder)
    price, asked = None, False
    if key is not None:
        try:
            if target.provider.own_server and values.get("ask", False):
                notes = (*notes, await _models_there(target, folder))
            price = await _provider_price(target, plan, key, ask=values.get("ask", False))
            asked = price is not None
        except RemoteError as error:
            warnings = (*warnings, _sentence(error))
    cost = Cost(price)
    if price is None:
        cost = listed_cost(plan, await asyncio.to_thread(read_settings, folder))
    try:
        spent, budget = await asyncio.to_thread(_spending, folder)
        check_limits(cost, spent, Limits(values.get("max_cost", 0.0), values.get("max_cost_per_day", 0.0)), budget)
    except RemoteError as error:
        warnings = (*warnings, _sentence(error))
    estimates = None if cost.lowest is None else (cost.lowest, cost.usd)
    return Quote(target.provider.title, target.model.id, cost.known, estimates, asked, cost.source,
                 seconds=plan.billed_seconds, notes=notes, warnings=warnings)


def _plan(target: Target, inputs: NodeInputs) -> Plan:
    """Return the plan, with linked inputs at their defaults."""
    known = {field.name for field in fields(ClipRequest)} - {"loras"}
    clip = ClipRequest(**{"prompt": "", **{name: value for name, value in inputs.values.items() if name in known}})
    check_request(replace(clip, prompt=clip.prompt if clip.prompt.strip() else SAMPLE_PROMPT))
    if "loras" in inputs.linked:
        check_takes_loras(target.model)
    plan = plan_clip(target.model, clip, inputs.values.get("longer_clips", TRIM),
                     last_image="last_image" in inputs.linked)
    return replace(plan, options=target.options)


def _spending(folder: Path) -> tuple[float, Limits]:
    """Return the US dollars spent in 24 hours, and the user's budget for all nodes."""
    return Ledger(folder).spent(), read_settings(folder).budget


def _sentence(error: RemoteError) -> str:
    """Return an error's message without its last sentence, which goes without saying here."""
    return str(error).removesuffix(" Nothing was sent.").removesuffix(" Nothing was bought.")


def _usable_key(target: Target, inputs: NodeInputs, folder: Path) -> tuple[Secret | None, tuple[str, ...]]:
    """Return the key with which the provider may be asked, or why the node could not ask it."""
    if read_settings(folder).local_only:
        return None, (str(local_only_error("use a provider")),)
    if policy_from_environment().offline:
        return None, (f"{OFFLINE_VARIABLE} is set: no provider can be reached.",)
    if "profile" in inputs.linked:
        return None, ()
    if fault := profile_fault(target.profile):
        return None, (fault,)
    try:
        if target.provider.own_server:
            read_settings(folder).own_server(target.provider.title, target.profile)
        return KeyStore(folder / "keys.json").of(target.provider.name, target.provider.title,
                                                 target.provider.variables, target.profile), ()
    except RemoteError as error:
        return None, (_sentence(error),)


async def _models_there(target: Target, folder: Path) -> str:
    """Return a sentence on the models that an own server has. Raises RemoteError, as when it cannot be reached."""
    client = open_client(target.provider, target.profile, read_settings(folder), KeyStore(folder / "keys.json"),
                         policy_from_environment(), BRIEF, asyncio.sleep)
    return f"Its models: {', '.join(await client.run(client.provider.models_there()))}."


class PriceCache:
    """The last prices by providers; safe for several threads."""

    def __init__(self) -> None:
        self._prices: OrderedDict[str, tuple[float, float | None]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: str) -> tuple[float | None, bool]:
        """Return the price, and whether the question was answered lately."""
        with self._lock:
            when, price = self._prices.get(question, (0.0, None))
        return (price, True) if when and time.monotonic() - when < MAX_AGE else (None, False)

    def put(self, question: str, price: float | None) -> None:
        """Keep the answer to a question."""
        with self._lock:
            self._prices[question] = (time.monotonic(), price)
            while len(self._prices) > MAX_CACHED:
                self._prices.popitem(last=False)


_PRICES = PriceCache()


async def _provider_price(target: Target, plan: Plan, key: Secret, *, ask: bool) -> float | None:
    """Return the provider's price in US dollars, asked for if that is allowed; None when not known."""
    client = ProviderClient(target.provider, key, policy_from_environment(), BRIEF, asyncio.sleep)
    body = sample_body(plan, client)
    question = json.dumps([target.provider.name, target.profile, plan.model_name, body], sort_keys=True)
    price, known = _PRICES.get(question)
    if known or not ask:
        return price
    price = await quoted_price(plan, body, client)
    _PRICES.put(question, price)
    return price
