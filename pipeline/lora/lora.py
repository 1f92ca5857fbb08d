"""Read the LoRAs of a request from a node's inputs: one file for one expert or both, or a pair."""

from __future__ import annotations

from dataclasses import replace

from ..download.source import is_remote, parse_source
from ..request import ALL_STEPS, AUTO, BOTH, HIGH, LOW, Lora, LoraSchedule, RequestError


def check_lora(lora: Lora) -> None:
    """Raise RequestError for the first value out of its range, DownloadError for a link that cannot be one."""
    if is_remote(lora.source):
        parse_source(lora.source)
    lora.check()


def new_loras(source: str, scale: float, expert: str, min_match: float, sha256: str = "", source_low: str = "",
              sha256_low: str = "", schedule: LoraSchedule = ALL_STEPS) -> tuple[Lora, ...]:
    """Return one LoRA, or the two halves of a pair when there is a source for the low-noise expert.

    Raises as check_lora does, and RequestError for an expert chosen beside a pair, which settles that itself.
    """
    first = Lora(source.strip(), scale, expert, sha256.strip() or None, min_match, schedule)
    if not source_low.strip():
        check_lora(first)
        if sha256_low.strip():
            raise RequestError("There is a sha256_low but no source_low. Give the low-noise file too, or clear it.")
        return (first,)
    if expert not in (AUTO, BOTH):
        raise RequestError(f"The expert is {expert!r}, but with source_low there is a file for each. Choose auto, or "
                           "clear source_low.")
    pair = (replace(first, expert=HIGH),
            Lora(source_low.strip(), scale, LOW, sha256_low.strip() or None, min_match, schedule))
    for half in pair:
        check_lora(half)
    return pair
