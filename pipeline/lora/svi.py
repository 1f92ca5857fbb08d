"""The LoRA pair of Stable Video Infinity, with which a clip goes on by SVI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from ..request import AUTO, BOTH, EXPERTS, Lora
from ..segments import is_svi_lora
from .expert import expert_by_name
from .match import experts_of


def has_svi_pair(loras: Iterable[tuple[Lora, str]]) -> bool:
    """Tell whether both experts get a LoRA with SVI in its file's name, at a scale other than 0.

    loras: each with a name of its file, or a link to it; a LoRA may come more than once, with another name. A folder's
    name does not count: what lies beside the pair is no SVI. It helps to tell the expert of one that is on AUTO.
    """
    return {expert for lora, name in loras if lora.scale for expert in _svi_experts(lora, name)} == set(EXPERTS)


def _svi_experts(lora: Lora, name: str) -> list[str]:
    """Return the experts that a LoRA goes to if it is one of SVI; else none."""
    path = urlsplit(name.replace("\\", "/")).path
    if not is_svi_lora(PurePosixPath(path).name):
        return []
    named = expert_by_name(path) if lora.expert == AUTO else None
    expert = BOTH if lora.expert == AUTO else lora.expert
    return experts_of(replace(lora, expert=named[0] if named else expert))
