"""A hosted model: its name, what it accepts, and its prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRICES_READ = "2026-09"
"""Month in which the prices of all models were read; each Price names its source."""


@dataclass(frozen=True)
class Price:
    """The price of a clip in US dollars: `clip` for the whole, or `second` for each second that is bought."""

    clip: float = 0.0
    second: float = 0.0
    source: str = ""

    def usd(self, seconds: float) -> float:
        """Return the price of a clip of so many seconds."""
        return self.clip + self.second * seconds


@dataclass(frozen=True)
class RemoteModel:
    """An endpoint of a provider and what it accepts. The rest of a request is left out, and the user told before."""

    id: str
    """As the provider names it; `{resolution}` stands for 480p or 720p where that is part of the name."""
    loras: int = 0
    """Most LoRAs for each expert; 0: none."""
    loras_for_both: bool = True
    """Whether it takes one list of LoRAs for both experts, beside one for each."""
    lora_pages: bool = False
    """Whether a LoRA may be a Hugging Face repository (owner/repo) or a page of Civitai, which it looks up itself."""
    lora_scales: tuple[float, float] = (0.0, 4.0)
    """Lowest and highest scale."""
    negative_prompt: bool = False
    last_image: str = ""
    """Parameter for the link of a picture that the clip ends with; "" where it takes none."""
    max_steps: int = 0
    """Most denoising steps; 0: it decides itself."""
    guidance: bool = False
    num_frames: tuple[int, int] | None = None
    """Fewest and most frames; None where clips are bought by the second."""
    durations: tuple[int, ...] = ()
    """Seconds that can be bought, where frames cannot be asked for; ascending."""
    resolutions: tuple[str, ...] = ("480p", "720p")
    """Sizes that are sold."""
    prices: Mapping[str, Price] = field(default_factory=dict)
    """Resolution -> price, as far as known."""

    def name(self, resolution: str) -> str:
        """Return the provider's id for a resolution."""
        return self.id.replace("{resolution}", resolution)
