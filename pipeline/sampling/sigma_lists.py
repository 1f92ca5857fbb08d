"""Lists of sigmas other than the official table: those of distilled weights, thinned tables, and one's own.

bench/steps.py measures them on the bundled model; bench/README.md has the figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from ..request import SIGMA_SCHEDULES, RequestError

_, THINNED_18, THINNED_14, LIGHTX2V, TURBO = SIGMA_SCHEDULES
THINNED: dict[str, tuple[int, tuple[int, ...]]] = {THINNED_18: (4, (5, 9)), THINNED_14: (4, (10,))}
"""Steps to keep of the high-noise expert, and of the low-noise expert: evenly, or fewer of its first half, where the
velocity changes least, and nearly all of its second."""
DISTILLED: dict[str, tuple[float, ...]] = {
    LIGHTX2V: (1.0, 0.9375, 5 / 6, 0.625),
    TURBO: tuple(math.sin(t) / (math.sin(t) + math.cos(t)) for t in (math.atan(200.0), 1.5, 1.4, 1.0)),
}
"""Sigmas of every step's start that distilled weights were trained for.

lightx2v: timesteps 1000, 750, 500 and 250 at shift 5. TurboDiffusion: turbodiffusion/inference/wan2.2_i2v_infer.py,
whose t are angles, and whose boundary is 0.9 too: .995, .934, .853, .609.
"""
_FIRST_PART = 10 / 19
"""Of the low-noise steps, as measured: of the 30-step table's 19, 5 of the first 10 and 9 of the last 9."""


def read_sigmas(given: Any) -> tuple[float, ...]:
    """Return the sigmas of every step's start from a text or from ComfyUI's SIGMAS, a tensor (steps + 1,).

    A text holds numbers with commas, spaces or line breaks between them; the 0 at the end may be left out; an empty
    one gives none. Raises RequestError for what is no list of numbers; `check_sigmas` has the ranges.
    """
    if isinstance(given, str):
        sigmas = [_number(word) for word in re.split(r"[\s,]+", given) if word]
        if given.strip() and not sigmas:
            raise RequestError(f"sigmas is {given!r}, without a number. Write a list such as 1, 0.9375, 0.8333, 0.625, "
                               "or leave it empty.")
    else:
        sigmas = _of_tensor(given)
    if sigmas and sigmas[-1] == 0.0:
        sigmas.pop()
        if not sigmas:
            raise RequestError("sigmas lists the end, 0, and no step. Write where every step starts, such as 1, "
                               "0.9375, 0.8333, 0.625.")
    return tuple(sigmas)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise RequestError(f"sigmas has {word!r}, which is no number. Write a list such as 1, 0.9375, 0.8333, "
                           "0.625.") from None


def _of_tensor(given: Any) -> list[float]:
    """Return the numbers of a SIGMAS, each as the shortest decimal of its float32: 0.9 and not 0.8999999762.

    A list without its 0 has been split, and would be brought to its end in one step here.
    """
    if getattr(given, "ndim", None) != 1 or len(given) < 2:
        raise RequestError("sigmas is neither text nor a SIGMAS with a step in it. Connect a node such as "
                           "BasicScheduler, or write a list such as 1, 0.9375, 0.8333, 0.625.")
    sigmas = [float(str(value)) for value in given.float().cpu().numpy()]
    if sigmas[-1] != 0.0:
        raise RequestError(f"The SIGMAS in sigmas end at {sigmas[-1]:g}; a whole list ends at 0. Connect it before it "
                           "is split: the boundary and stage decide which expert's steps are run.")
    return sigmas


def thinned(high: int, low: int, kept: tuple[int, tuple[int, ...]]) -> list[int]:
    """Return the steps to keep, counted from 0, of a table with `high` steps of one expert and then `low` of the other.

    kept: as in THINNED. Where there are no more steps than would be kept, all stay.
    """
    kept_high, kept_low = kept
    return [*_evenly(range(high), kept_high), *_in_parts(range(high, high + low), kept_low)]


def _evenly(steps: range, count: int) -> Iterable[int]:
    """Return `count` of some steps, the first among them."""
    return steps if len(steps) <= count else [steps[math.ceil(i * len(steps) / count)] for i in range(count)]


def _in_parts(steps: range, counts: tuple[int, ...]) -> Iterable[int]:
    """Return the steps to keep of one part, or of a first and a second one."""
    if len(counts) == 1 or len(steps) <= sum(counts):
        return _evenly(steps, sum(counts))
    first, second = counts
    middle = min(round(len(steps) * _FIRST_PART), len(steps) - second)
    return [*_evenly(steps[:middle], first), *_evenly(steps[middle:], second)]
