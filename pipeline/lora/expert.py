"""Choose the expert that a LoRA is for, when the user leaves that open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

from ..checkpoint.expert_name import expert_in_name
from .probe import LoraFacts

MODEL_KEYS = ("ss_sd_model_name", "base_model")
TITLE_KEYS = ("ss_output_name", "modelspec.title", "name")
"""Metadata in which trainers name the base model, and the LoRA (musubi-tuner and ai-toolkit)."""
NO_CLUE = "nothing in it names one expert, so both take it"


def _by_timesteps(metadata: Mapping[str, str]) -> tuple[str, str] | None:
    """Choose by the timesteps of 1000 that musubi-tuner trained on; the boundary is at 900, of T2V at 875."""
    found = re.fullmatch(r"\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*", metadata.get("modelspec.timestep_range", "")[:20])
    if found is None:
        return None
    lowest, highest = int(found[1]), int(found[2])
    why = f"it was trained on timesteps {lowest} to {highest} of 1000"
    if lowest >= 800:
        return "high", why
    return ("low", why) if highest <= 900 else None


def expert_by_name(file_name: str) -> tuple[str, str] | None:
    """Return the expert in a file's name, else in that of its innermost folder that names one, and why; else None.

    `file_name` may have folders before it.
    """
    *folders, name = re.split(r"[\\/]", file_name)
    if expert := expert_in_name(re.sub(r"\.(?:safetensors|sft)$", "", name)):
        return expert, f"its file name says {expert} noise"
    if expert := next(filter(None, map(expert_in_name, reversed(folders))), None):
        return expert, f"its folder's name says {expert} noise"
    return None


def choose_expert(facts: LoraFacts, file_name: str, metadata: Mapping[str, str]) -> tuple[str, str]:
    """Return the expert to patch, "both", "high" or "low", and why, a clause such as "its file name says low noise".

    The first of these decides: prefixes of the tensors, the timesteps it was trained on, its title, the model it was
    trained on, the file's name, the names of its folders. `file_name` may have folders before it.
    """
    if facts.experts:
        if len(facts.experts) == 2:
            return "both", "it has tensors for each of the two"
        (expert,) = facts.experts
        return expert, f"its tensors are named for the {expert}-noise expert"
    if chosen := _by_timesteps(metadata):
        return chosen
    for key in TITLE_KEYS:
        if expert := expert_in_name(metadata.get(key, "")[:200]):
            return expert, f"its trainer called it {expert} noise"
    # musubi-tuner names only the low-noise model when it trains both, so that only `high` means one expert.
    if any(expert_in_name(PurePath(metadata.get(key, "")[:500]).name) == "high" for key in MODEL_KEYS):
        return "high", "it was trained on the high-noise expert"
    return expert_by_name(file_name) or ("both", NO_CLUE)
