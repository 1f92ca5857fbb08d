"""Limits on what may be spent, and the check of a price against them."""

from __future__ import annotations

from dataclasses import dataclass

from . import ui_names
from .errors import ErrorKind, RemoteError


@dataclass(frozen=True)
class Limits:
    """US dollars that may be spent on one clip and in 24 hours; 0: no limit."""

    clip: float = 0.0
    day: float = 0.0


NO_LIMITS = Limits()


def check_limits(price: float | None, spent: float, limits: Limits, budget: Limits = NO_LIMITS) -> None:
    """Raise RemoteError (BUDGET) when a purchase breaks a limit, or a limit is set and the price is not known.

    price: US dollars; None when not known. spent: US dollars of the last 24 hours. limits: the node's own. budget: the
    user's for all nodes.
    """
    _check(price, spent, limits, "max_cost", "max_cost_per_day", "Set the limits to 0")
    _check(price, spent, budget, f"the most for a clip in {ui_names.BUDGET}",
           f"the most for a day in {ui_names.BUDGET}", f"Clear {ui_names.BUDGET}")


def _check(price: float | None, spent: float, limits: Limits, clip_name: str, day_name: str, lift: str) -> None:
    """clip_name, day_name: how a message names the limits. lift: how a message says to lift them."""
    if price is None and (limits.clip or limits.day):
        raise RemoteError(ErrorKind.BUDGET, "The price of this clip is not known, so "
                          f"{clip_name if limits.clip else day_name} cannot be checked. Write what you expect it to "
                          f"cost into `prices` of remote.json, or {lift[0].lower()}{lift[1:]} to buy it all the same, "
                          "or choose another provider. Nothing was bought.")
    if price is not None and limits.clip and price > limits.clip:
        raise RemoteError(ErrorKind.BUDGET, f"The clip costs ${price:.3f}, more than {clip_name}, ${limits.clip:.3f}. "
                          "Nothing was bought.")
    if price is not None and limits.day and spent + price > limits.day:
        raise RemoteError(ErrorKind.BUDGET, f"${spent:.3f} was spent in the last 24 hours and the clip costs "
                          f"${price:.3f}: together more than {day_name}, ${limits.day:.3f}. Nothing was bought.")
