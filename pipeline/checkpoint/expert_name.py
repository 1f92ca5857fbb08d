"""Find the expert, high or low noise, that the name of a file, a folder or a model mentions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

EXPLICIT = re.compile(
    r"""(?i:(high)|(low))[\s_.-]*(?i:noise)
    | (?:(?<![A-Za-z])|(?<=[a-z])(?=[HL])) (?:([Hh][Ii]?)|[Ll][Oo]?) [\s_.-]* (?i:noise)
    | (?:(?<![提升增])(高)|(?<![降减減压壓])低) [\s_.-]* (?:噪|ノイズ|[雜杂][訊讯音])
    | (?:(고)|저) [\s_.-]* 노이즈""", re.VERBOSE)
"""high noise, Hnoise, hi-noise; 高噪, 高噪声, 高ノイズ, 高雜訊, 고노이즈; not 降低噪点, which means to lower noise."""
BOTH_NOISES = re.compile(
    r"""high [\W_]* (?:and|n)? [\W_]* low [\s_.-]* noise | low [\W_]* (?:and|n)? [\W_]* high [\s_.-]* noise
    | 高 [\W_]* 低 | 低 [\W_]* 高""", re.VERBOSE | re.IGNORECASE)
"""high_low_noise, High & Low Noise, 高低噪: both experts before one word for noise."""
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
OTHER_SENSES = {
    "angle", "camera", "contrast", "cut", "def", "definition", "density", "detail", "details", "dream", "dynamic",
    "dynamics", "end", "energy", "fashion", "fi", "fidelity", "five", "fps", "hat", "heel", "heels", "impact", "jump",
    "key", "kick", "light", "lighting", "memory", "motion", "poly", "quality", "ram", "res", "resolution", "rez",
    "rise", "school", "shot", "speed", "strength", "tech", "there", "vis", "vram", "waist",
}
"""Words that give `high`, `low`, `hi` or `lo` before them another meaning."""
SHORT = re.compile(
    r"""(?<![A-Za-z0-9])(?<!K_)(?:(HN|HI)|(?:LN|LO))(?:(?=V[0-9])|(?![A-Za-z0-9]))
    | (?<![A-Za-z0-9])(?<!K_)(?:(H)|L)(?![A-Za-z0-9])
    | (?<![^\W_])(?:(高)|低)(?![^\W_])""", re.VERBOSE | re.IGNORECASE)
"""Abbreviations that stand alone; lower case counts only in a name that mentions Wan or 2.2. The L of Q3_K_L is a size
of GGUF's."""
LAST = re.compile(r"[\s_.-]*(?:$|v?[0-9]|(?:e|ep|epoch|step|lora|rank|fp|bf|i2v|t2v|wan|model)(?![a-z]))",
                  re.IGNORECASE)
"""Words behind `hi` and `lo` where those are no words of a language."""
WAN = re.compile(r"wan|2[._]?2", re.IGNORECASE)


def expert_in_name(text: str) -> str | None:
    """Return "high" or "low", the expert that a name mentions; None when it mentions neither or both.

    `high_noise` and the like, also in Chinese, Japanese and Korean, go before the words `high` and `low`, in any case
    and inside CamelCase, and those go before `HN`, `LN`, `HI`, `LO`, `H` and `L` standing alone. `slow`, `glow`,
    `highres`, `low angle`, `lo-fi` and `HiDream` do not count.
    """
    text = unicodedata.normalize("NFKC", text)
    if BOTH_NOISES.search(text):
        return None
    if EXPLICIT.search(text):
        return _only(_high_or_low(match) for match in EXPLICIT.finditer(text))
    if any(True for _ in _words(text)):
        return _only(_words(text))
    return _only(_high_or_low(match) for match in SHORT.finditer(text) if _is_abbreviation(match, text))


def _high_or_low(match: re.Match[str]) -> str:
    """Every pattern puts what means high in a group, and nothing else but `low`."""
    return "high" if any(group and group.lower() != "low" for group in match.groups()) else "low"


def _is_abbreviation(match: re.Match[str], text: str) -> bool:
    short, behind = match[0], text[match.end():]
    if short.lower() in ("hi", "lo") and not short.isupper():
        before = WORD.findall(text[:match.start()])[-1:]
        return bool(WAN.search(text) and LAST.match(behind)) and before not in (["say"], ["says"], ["saying"])
    following = WORD.search(behind)
    if following and short in ("HI", "LO") and following[0].lower() in OTHER_SENSES:
        return False
    return short == short.upper() or WAN.search(text) is not None


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
