"""What a remote clip will cost and what of it will be left out, for inputs that are still being chosen on a node.

Prices come from the tables beside the models. The provider's own pricing call is made only when the user lets things
leave the machine and has a key there, and tells it the model and the length: no prompt, no picture, no LoRA.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, fields, replace
from pathlib import Path

from ..http.policy import OFFLINE_VARIABLE, Patience, policy_from_environment
from ..node_inputs import NodeInputs
from ..request import ClipRequest
from .client import Client
from .errors import RemoteError
from .keys import DEFAULT_PROFILE, PROFILE, Key, Keys
from .ledger import Ledger, Limits, check_limits
from .plan import PRICES_READ, TRIM, Plan, check_takes_loras, plan_clip
from .request import check_request
from .run import Offer, Target, check_strict, target_of
from .settings import local_only_error, read_settings
from .submit import STAND_IN, asked_price, draft, table_price

INPUTS = {"provider": str, "provider.model": str, "profile": str, "prompt": str, "negative_prompt": str,
          "resolution": str, "num_frames": int, "num_inference_steps": int, "guidance_scale": float, "max_cost": float,
          "max_cost_per_day": float, "longer_clips": str, "strict": bool, "loras": str, "ask": bool}
"""Of the node, and whether the provider may be asked; `loras` is never more than linked."""
DECIDING = ("provider", "provider.model", "resolution", "num_frames")
"""What the price depends on."""
HURRY = Patience(request=8.0, attempts=1)
"""A price that takes longer comes too late to be of use."""
FRESH = 600.0
"""Seconds for which a provider's price is believed."""
REMEMBERED = 64


@dataclass(frozen=True)
class Quote:
    """US dollars and who says so, and what the user should know before buying."""

    provider: str = ""
    price: float | None = None
    asked: bool = False
    """Whether the provider itself says so; else it is the table of `month`."""
    source: str = ""
    """Where the table was read."""
    month: str = PRICES_READ
    seconds: float = 0.0
    """That are bought."""
    notes: tuple[str, ...] = ()
    """What will be ignored or changed."""
    warnings: tuple[str, ...] = ()
    """Why the node would refuse to buy."""
    unknown: tuple[str, ...] = ()
    """Inputs that come from other nodes and decide on the price: there is none then."""


class Prices:
    """What providers said, for a while. For any number of threads."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, tuple[float, float | None]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: str) -> tuple[float | None, bool]:
        """The price, and whether there is an answer."""
        with self._lock:
            when, price = self._said.get(question, (0.0, None))
        return (price, True) if when and time.monotonic() - when < FRESH else (None, False)

    def put(self, question: str, price: float | None) -> None:
        with self._lock:
            self._said[question] = (time.monotonic(), price)
            while len(self._said) > REMEMBERED:
                self._said.popitem(last=False)


_PRICES = Prices()


async def quote(inputs: NodeInputs, own: Path) -> Quote:
    """The quote for a node's inputs. own: the pack's folder, with settings and keys.

    Raises RequestError or RemoteError with the sentence that the run would end with, whatever else is chosen.
    """
    if unknown := tuple(name for name in DECIDING if name in inputs.linked):
        return Quote(unknown=unknown)
    given = inputs.values
    target = target_of(Offer(given.get("provider", ""), given.get("provider.model", ""),
                             given.get("profile", DEFAULT_PROFILE)))
    plan = _plan(target, inputs)
    notes = tuple(said for name, said in plan.changed.items() if name not in inputs.linked)
    if given.get("strict"):
        check_strict(target.adapter, notes)
    key, warnings = await asyncio.to_thread(_allowed, target, inputs, own)
    price, asked = None, False
    if key is not None:
        try:
            price = await _asked(target, plan, key, ask=given.get("ask", False))
            asked = price is not None
        except RemoteError as error:
            warnings = (*warnings, _said(error))
    source = ""
    if price is None:
        price, source = table_price(plan)
    try:
        spent, budget = await asyncio.to_thread(_money, own)
        check_limits(price, spent, Limits(given.get("max_cost", 0.0), given.get("max_cost_per_day", 0.0)), budget)
    except RemoteError as error:
        warnings = (*warnings, _said(error))
    return Quote(target.adapter.title, price, asked, source, seconds=plan.billed_seconds, notes=notes,
                 warnings=warnings)


def _plan(target: Target, inputs: NodeInputs) -> Plan:
    """Linked inputs stand at their defaults."""
    known = {field.name for field in fields(ClipRequest)} - {"loras"}
    clip = ClipRequest(**{"prompt": "", **{name: value for name, value in inputs.values.items() if name in known}})
    check_request(replace(clip, prompt=clip.prompt if clip.prompt.strip() else STAND_IN))
    if "loras" in inputs.linked:
        check_takes_loras(target.model)
    return plan_clip(target.model, clip, inputs.values.get("longer_clips", TRIM))


def _money(own: Path) -> tuple[float, Limits]:
    """US dollars of the last 24 hours, and what the user set for all nodes."""
    return Ledger(own).spent(), read_settings(own).budget


def _said(error: RemoteError) -> str:
    """The error's sentence, of which the last part goes without saying here."""
    return str(error).removesuffix(" Nothing was sent.").removesuffix(" Nothing was bought.")


def _allowed(target: Target, inputs: NodeInputs, own: Path) -> tuple[Key | None, tuple[str, ...]]:
    """The key with which the provider may be asked, or why the node would be refused it."""
    if read_settings(own).local_only:
        return None, (str(local_only_error("use a provider")),)
    if policy_from_environment().offline:
        return None, (f"{OFFLINE_VARIABLE} is set: no provider can be reached.",)
    if "profile" in inputs.linked:
        return None, ()
    if not PROFILE.fullmatch(target.profile):
        return None, ("profile is no name of a profile: it has 1 to 40 letters, digits, - and _.",)
    try:
        return Keys(own / "keys.json").of(target.adapter.name, target.adapter.title, target.adapter.variables,
                                          target.profile), ()
    except RemoteError as error:
        return None, (_said(error),)


async def _asked(target: Target, plan: Plan, key: Key, *, ask: bool) -> float | None:
    """The provider's price, as far as it is known or may be asked."""
    client = Client(target.adapter, key, policy_from_environment(), HURRY, asyncio.sleep)
    body = draft(plan, client)
    question = json.dumps([target.adapter.name, target.profile, plan.model_name, body], sort_keys=True)
    price, known = _PRICES.get(question)
    if known or not ask:
        return price
    price = await asked_price(plan, body, client)
    _PRICES.put(question, price)
    return price
