"""A hosted model: what it is called, what it takes, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRICES_READ = "2026-09"
"""When the prices in the providers' files were read; each says where."""


@dataclass(frozen=True)
class Rate:
    """US dollars for one clip of a resolution: `clip`, or `second` for each second that is bought."""

    clip: float = 0.0
    second: float = 0.0
    source: str = ""

    def of(self, seconds: float) -> float:
        return self.clip + self.second * seconds


@dataclass(frozen=True)
class RemoteModel:
    """One endpoint of a provider. What it does not take is left out of the request, and the user told so before."""

    id: str
    """As the provider names it; `{resolution}` stands for 480p or 720p where that is part of the name."""
    loras: int = 0
    """LoRAs that each expert takes at most."""
    lora_scales: tuple[float, float] = (0.0, 4.0)
    negative_prompt: bool = False
    max_steps: int = 0
    """Denoising steps that can be asked for at most; 0: none can."""
    guidance: bool = False
    num_frames: tuple[int, int] | None = None
    """Fewest and most frames; None where clips are bought by the second."""
    durations: tuple[int, ...] = ()
    """Seconds that can be bought, where frames cannot be asked for."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """Resolution -> price, as far as known."""

    def name(self, resolution: str) -> str:
        """The id for a resolution."""
        return self.id.replace("{resolution}", resolution)
