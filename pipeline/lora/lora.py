"""One LoRA of a request: what a WAN22_LORAS socket carries a tuple of."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..download.source import is_remote, parse_source
from ..files.names import read_sha256
from ..request import RequestError

AUTO, BOTH, HIGH, LOW = EXPERTS = ("auto", "both", "high", "low")
DEFAULT_SCALE = 0.8
MAX_SCALE = 4.0
DEFAULT_MIN_MATCH = 0.9


@dataclass(frozen=True)
class Lora:
    """A LoRA as it was asked for; nothing of it has been read yet.

    `source` is a link or the name of a file in ComfyUI's loras folder. `scale` is -4..4. `expert` is one of EXPERTS;
    `auto` is settled by what the file says of itself. `sha256`, in hexadecimal, is what the file's bytes must hash to.
    `min_match`, 0..1, is the share of its keys that must fit the expert.
    """

    source: str
    scale: float = DEFAULT_SCALE
    expert: str = AUTO
    sha256: str | None = None
    min_match: float = DEFAULT_MIN_MATCH

    def check(self) -> None:
        """Raise RequestError for the first value out of its range, DownloadError for a link that cannot be one."""
        if not self.source.strip():
            raise RequestError("The LoRA has no source. Paste a link to a .safetensors file, or choose a file of the "
                               "loras folder.")
        if is_remote(self.source):
            parse_source(self.source)
        if not (math.isfinite(self.scale) and -MAX_SCALE <= self.scale <= MAX_SCALE):
            raise RequestError(f"The LoRA's scale is {self.scale:g}; choose {-MAX_SCALE:g} to {MAX_SCALE:g} (0 to 1 is "
                               "usual).")
        if self.expert not in EXPERTS:
            raise RequestError(f"The LoRA's expert is {self.expert!r}; choose one of {', '.join(EXPERTS)}.")
        if self.sha256 is not None and read_sha256(self.sha256) is None:
            raise RequestError(f"The LoRA's sha256 has {len(self.sha256)} characters or others than 0-9 and a-f; it "
                               "is 64 hexadecimal digits, as `sha256sum` and Civitai show it.")
        if not 0.0 <= self.min_match <= 1.0:
            raise RequestError(f"The LoRA's min_match is {self.min_match:g}; choose 0 to 1.")


def new_loras(source: str, scale: float, expert: str, min_match: float, sha256: str = "", source_low: str = "",
              sha256_low: str = "") -> tuple[Lora, ...]:
    """One LoRA, or the two halves of a pair when there is a source for the low-noise expert.

    Raises as Lora.check does, and RequestError for an expert chosen beside a pair, which settles that itself.
    """
    first = Lora(source.strip(), scale, expert, sha256.strip() or None, min_match)
    if not source_low.strip():
        first.check()
        if sha256_low.strip():
            raise RequestError("There is a sha256_low but no source_low. Give the low-noise file too, or clear it.")
        return (first,)
    if expert not in (AUTO, BOTH):
        raise RequestError(f"The expert is {expert!r}, but with source_low there is a file for each. Choose auto, or "
                           "clear source_low.")
    pair = (replace(first, expert=HIGH),
            Lora(source_low.strip(), scale, LOW, sha256_low.strip() or None, min_match))
    for half in pair:
        half.check()
    return pair
