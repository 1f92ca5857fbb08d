"""Limits on what may be spent, and the check of a price against them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import ui_names
from .errors import ErrorKind, RemoteError


@dataclass(frozen=True)
class Limits:
    """US dollars that may be spent on one clip and in 24 hours; 0: no limit."""

    clip: float = 0.0
    day: float = 0.0
    paid: float = 0.0
    """What the earlier clips of a chain have cost, which counts against `clip` too."""


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Cost:
    """What a clip, or several, will cost, as far as it can be told before they are bought."""

    usd: float | None
    """US dollars that count against the limits and into the sum of the day; None when nothing is known."""
    source: str = ""
    lowest: float | None = None
    """Where the price is not known: the lowest of its estimates, `usd` being the highest. Else None."""
    clips: int = 1

    @property
    def known(self) -> float | None:
        """The price in US dollars; None where there are estimates alone, or nothing."""
        return self.usd if self.lowest is None else None

    def __str__(self) -> str:
        if self.usd is None:
            return "price not known"
        if self.lowest is not None:
            return f"price not known, ${self.lowest:.3f} to ${self.usd:.3f} by estimates"
        return f"${self.usd:.3f} ({self.source})"


def check_limits(cost: Cost, spent: float, limits: Limits, budget: Limits = NO_LIMITS) -> None:
    """Raise RemoteError (BUDGET) when a purchase breaks a limit, or a limit is set and the price is not known.

    A clip that costs nothing breaks none. spent: US dollars of the last 24 hours. limits: the node's own; its `paid`
    counts for the budget as well. budget: the user's for all nodes.
    """
    if cost.usd == 0:
        return
    _check(cost, spent, limits, "max_cost", "max_cost_per_day", "set the limits to 0")
    _check(cost, spent, replace(budget, paid=limits.paid), f"the most for a clip in {ui_names.BUDGET}",
           f"the most for a day in {ui_names.BUDGET}", f"clear {ui_names.BUDGET}")


def _check(cost: Cost, spent: float, limits: Limits, clip_name: str, day_name: str, lift: str) -> None:
    """clip_name, day_name: how a message names the limits. lift: how a message says to lift them."""
    price, paid = cost.known, limits.paid
    outcome = "Nothing was bought." if not paid else (
        f"${paid:.3f} was paid for the clips before; they are kept, and the next run goes on from them.")
    if price is None and (limits.clip or limits.day):
        unchecked = clip_name if limits.clip else day_name
        if cost.usd is None:
            raise RemoteError(ErrorKind.BUDGET, f"The price of this clip is not known, so {unchecked} cannot be "
                              f"checked. Write what you expect a clip to cost into `prices` of remote.json, or {lift} "
                              f"to buy all the same, or choose another provider. {outcome}")
        raise RemoteError(ErrorKind.BUDGET, f"The price of this clip is not known, so {unchecked} cannot be checked; "
                          f"by estimates it is ${cost.lowest:.3f} to ${cost.usd:.3f}. Accept the estimates of this "
                          "model once, on the node or in `accepted_estimates` of remote.json: then the highest "
                          f"counts. Or {lift} to buy all the same, or choose another provider. {outcome}")
    if price is not None and limits.clip and _exceeds(paid + price, limits.clip):
        whole = f", with those before ${paid + price:.3f}" if paid else ""
        too_much = (f"The clip costs ${price:.3f}{whole}, more than {clip_name}, ${limits.clip:.3f}."
                    if cost.clips == 1 else
                    f"The {cost.clips} clips cost ${price:.3f}{whole}, more than {clip_name}, ${limits.clip:.3f}.")
        raise RemoteError(ErrorKind.BUDGET, f"{too_much} {outcome}")
    if price is not None and limits.day and _exceeds(spent + price, limits.day):
        costs = "the clip costs" if cost.clips == 1 else f"the {cost.clips} clips cost"
        raise RemoteError(ErrorKind.BUDGET, f"${spent:.3f} was spent in the last 24 hours and {costs} ${price:.3f}: "
                          f"together more than {day_name}, ${limits.day:.3f}. {outcome}")


def _exceeds(usd: float, limit: float) -> bool:
    """Return whether a sum is above a limit, sums of binary fractions being a little off."""
    return usd - limit > 1e-9
