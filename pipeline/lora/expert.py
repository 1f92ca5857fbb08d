"""Which of the two experts a LoRA is for, when the user leaves that open."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import PurePath

from .probe import LoraFacts

EXPLICIT = re.compile(r"(high|low)[\s_.-]*noise", re.IGNORECASE)
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
OTHER_SENSES = {
    "angle", "camera", "contrast", "cut", "def", "definition", "density", "detail", "details", "dynamic", "dynamics",
    "end", "energy", "fashion", "fidelity", "five", "fps", "heel", "heels", "impact", "jump", "key", "kick", "light",
    "lighting", "memory", "motion", "poly", "quality", "ram", "res", "resolution", "rise", "school", "shot",
    "speed", "strength", "tech", "vram", "waist",
}
"""Words that make another word of `high` or `low` before them."""
SHORT = re.compile(r"(?<![A-Za-z0-9])(?:(HN|H)|(?:LN|L))(?![A-Za-z0-9])")
"""Abbreviations, which count only when they stand alone; small letters only in a name that speaks of Wan or of 2.2."""
WAN = re.compile(r"wan|2[._]?2", re.IGNORECASE)
MODEL_KEYS = ("ss_sd_model_name", "base_model")
TITLE_KEYS = ("ss_output_name", "modelspec.title", "name")
"""What trainers call the model they start from, and the LoRA they make (musubi-tuner and ai-toolkit)."""
NO_CLUE = "nothing in it names one expert, so both take it"


def _only(found: Iterator[str]) -> str | None:
    """The one expert that is named, None when there are none or both."""
    named = set(found)
    return named.pop() if len(named) == 1 else None


def _words(text: str) -> Iterator[str]:
    words = [word.lower() for word in WORD.findall(text)]
    for word, after in pairwise([*words, ""]):
        if word in ("highnoise", "lownoise"):
            yield word.removesuffix("noise")
        elif word in ("high", "low") and after not in OTHER_SENSES:
            yield word


def noise_in(text: str) -> str | None:
    """The expert that a LoRA's name speaks of, "high" or "low"; None when it speaks of neither or of both.

    `high_noise` counts before the words `high` and `low`, whatever their case or neighbours in CamelCase, and those
    before `HN`, `LN`, `H` and `L`, which have to stand alone. `slow`, `glow`, `highres` and `low angle` say nothing.
    """
    if EXPLICIT.search(text):
        return _only(match.lower() for match in EXPLICIT.findall(text))
    if any(True for _ in _words(text)):
        return _only(_words(text))
    if WAN.search(text):
        text = text.upper()
    return _only("high" if match[1] else "low" for match in SHORT.finditer(text))


def _timesteps(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """By the range that musubi-tuner was told to train on, of 1000; the experts meet at 900, those of T2V at 875."""
    found = re.fullmatch(r"\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*", metadata.get("modelspec.timestep_range", "")[:20])
    if found is None:
        return None
    lowest, highest = int(found[1]), int(found[2])
    why = f"it was trained on timesteps {lowest} to {highest} of 1000"
    if lowest >= 800:
        return "high", why
    return ("low", why) if highest <= 900 else None


def expert_by_name(file_name: str) -> tuple[str, str] | None:
    """The expert that a file's name speaks of, else the innermost of its folders that does, and why, as choose_expert
    says it; None when nothing does. `file_name` may have folders before it."""
    *folders, name = re.split(r"[\\/]", file_name)
    if expert := noise_in(re.sub(r"\.(?:safetensors|sft)$", "", name)):
        return expert, f"its file name says {expert} noise"
    if expert := next(filter(None, map(noise_in, reversed(folders))), None):
        return expert, f"its folder's name says {expert} noise"
    return None


def choose_expert(facts: LoraFacts, file_name: str, metadata: Mapping[str, str]) -> tuple[str, str]:
    """The expert to patch, "both", "high" or "low", and why, a clause such as "its file name says low noise".

    Asked in this order: the prefixes of the tensors, the range of timesteps it was trained on, what its trainer called
    it, the model it was trained on, the file's name and those of its folders. `file_name` may have folders before it.
    """
    if facts.experts:
        if len(facts.experts) == 2:
            return "both", "it has tensors for each of the two"
        (expert,) = facts.experts
        return expert, f"its tensors are named for the {expert}-noise expert"
    if told := _timesteps(metadata):
        return told
    for key in TITLE_KEYS:
        if expert := noise_in(metadata.get(key, "")[:200]):
            return expert, f"its trainer called it {expert} noise"
    # musubi-tuner names the low-noise model alone when it trains for both, so only `high` is telling.
    if any(noise_in(PurePath(metadata.get(key, "")[:500]).name) == "high" for key in MODEL_KEYS):
        return "high", "it was trained on the high-noise expert"
    return expert_by_name(file_name) or ("both", NO_CLUE)
