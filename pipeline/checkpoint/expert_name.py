"""Find the expert, high or low noise, that the name of a file, a folder or a model mentions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

EXPLICIT = re.compile(r"(high|low)[\s_.-]*noise", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
OTHER_SENSES = {
    "angle", "camera", "contrast", "cut", "def", "definition", "density", "detail", "details", "dynamic", "dynamics",
    "end", "energy", "fashion", "fidelity", "five", "fps", "heel", "heels", "impact", "jump", "key", "kick", "light",
    "lighting", "memory", "motion", "poly", "quality", "ram", "res", "resolution", "rise", "school", "shot",
    "speed", "strength", "tech", "vram", "waist",
}
"""Words that give `high` or `low` before them another meaning."""
SHORT = re.compile(r"(?<![A-Za-z0-9])(?<!K_)(?:(HN|H)|(?:LN|L))(?![A-Za-z0-9])")
"""Abbreviations that stand alone; lower case counts only in a name that mentions Wan or 2.2. The L of Q3_K_L is a size
of GGUF's."""
WAN = re.compile(r"wan|2[._]?2", re.IGNORECASE)


def expert_in_name(text: str) -> str | None:
    """Return "high" or "low", the expert that a name mentions; None when it mentions neither or both.

    `high_noise` goes before the words `high` and `low`, in any case and inside CamelCase, and those go before `HN`,
    `LN`, `H` and `L` standing alone. `slow`, `glow`, `highres` and `low angle` do not count.
    """
    if EXPLICIT.search(text):
        return _only(match.lower() for match in EXPLICIT.findall(text))
    if any(True for _ in _words(text)):
        return _only(_words(text))
    if WAN.search(text):
        text = text.upper()
    return _only("high" if match[1] else "low" for match in SHORT.finditer(text))


def _only(found: Iterator[str]) -> str | None:
    """Return the one expert that is named, None when there are none or both."""
    named = set(found)
    return named.pop() if len(named) == 1 else None


def _words(text: str) -> Iterator[str]:
    words = [word.lower() for word in WORD.findall(text)]
    for word, after in pairwise([*words, ""]):
        if word in ("highnoise", "lownoise"):
            yield word.removesuffix("noise")
        elif word in ("high", "low") and after not in OTHER_SENSES:
            yield word
