"""A list of LoRAs, as it was asked for, put on a model: the whole way from links to patches."""

from __future__ import annotations

from collections.abc import Sequence

from ..host import Host
from ..image_to_video import Wan22Model
from .apply import apply_loras
from .lora import Lora
from .match import LoraFile
from .open import Check, Fetch, Find, Stop, open_lora
from .probe import LoraFacts, check_fits


def open_loras(loras: Sequence[Lora], find: Find, fetch: Fetch, stop: Stop, check: Check) -> list[LoraFile]:
    """Every LoRA's file, the local ones first: what is wrong with them is said before anything is fetched."""
    opened: dict[Lora, LoraFile] = {}
    for lora in sorted(loras, key=lambda lora: find(lora.source) is None):
        if lora not in opened:
            opened[lora] = open_lora(lora, find, fetch, stop, check)
    return [opened[lora] for lora in loras]


def use_loras(model: Wan22Model, loras: Sequence[Lora], host: Host, find: Find, fetch: Fetch, stop: Stop,
              ) -> tuple[Wan22Model, list[str]]:
    """The model with the LoRAs in force, and a line on each for each expert.

    Raises as `open_lora` and `apply_loras` do.
    """
    config = model.high.model.config

    def check(facts: LoraFacts) -> None:
        check_fits(facts, config.num_attention_heads * config.attention_head_dim, config.num_layers)

    return apply_loras(model, open_loras(loras, find, fetch, stop, check), host)
