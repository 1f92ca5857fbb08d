"""How strongly a motion steers, as the nodes show it that draw one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline.motion.strength import STRENGTHS, Strength
from ..pipeline.request import RequestError

CUSTOM = "custom"


def strength_input() -> io.Input:
    """Return the choice of a pair of sigmas by name, or of custom ones."""
    sigma = {"min": 0.01, "max": 1.0, "step": 0.001}
    first = next(iter(STRENGTHS.values()))
    custom = io.DynamicCombo.Option(CUSTOM, [
        io.Float.Input("weak_sigma", default=first.weak, **sigma,
                       tooltip="Noise level that the clip starts at, from the moved picture with that much noise. "
                               "Lower follows it more closely."),
        io.Float.Input("strong_sigma", default=first.strong, **sigma,
                       tooltip="Noise level until which the moved pixels are put back after each step. Lower holds "
                               "them longer, and leaves less life in them."),
    ])
    return io.DynamicCombo.Input(
        "strength", options=[*(io.DynamicCombo.Option(name, []) for name in STRENGTHS), custom],
        tooltip="How strongly to steer, as two noise levels that belong to a model: where the clip starts, and until "
                "where it is held. Those of Wan 2.2 are the official ones of Time-to-Move.")


def strength_of(strength: dict[str, Any]) -> Strength:
    """Return a strength choice. Raises RequestError for one that is not on the list, or sigmas out of range."""
    choice = strength["strength"]
    if choice == CUSTOM:
        chosen = Strength(strength.get("weak_sigma", 0.0), strength.get("strong_sigma", 0.0))
    elif choice in STRENGTHS:
        chosen = STRENGTHS[choice]
    else:
        raise RequestError(f"strength is {choice!r}; choose one of {', '.join([*STRENGTHS, CUSTOM])}.")
    chosen.check()
    return chosen
