"""A hosted model: its name, what it accepts, and its prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRICES_READ = "2026-11"
"""Month in which the prices of all models were read last; each Price names its source."""


@dataclass(frozen=True)
class Price:
    """The price of a clip in US dollars: `clip` for the whole, or `second` for each second that is bought."""

    clip: float = 0.0
    second: float = 0.0
    source: str = ""

    def __str__(self) -> str:
        return f"${self.clip:g} a clip" if self.clip else f"${self.second:g} a second"

    def usd(self, seconds: float) -> float:
        """Return the price of a clip of so many seconds."""
        return self.clip + self.second * seconds


def by_second(source: str, **usd: tuple[float, float]) -> dict[str, tuple[Price, Price]]:
    """Return estimates of US dollars a second, lowest and highest; p480: of 480p. source: where they are from."""
    return {f"{size[1:]}p": (Price(second=low, source=source), Price(second=high, source=source))
            for size, (low, high) in usd.items()}


@dataclass(frozen=True)
class RemoteModel:
    """An endpoint of a provider and what it accepts. The rest of a request is left out, and the user told before."""

    id: str
    """As the provider names it; `{resolution}` stands for 480p or 720p where that is part of the name. Saved in
    workflows, so never changed."""
    title: str = ""
    """Name to show; "" for the id."""
    loras: int = 0
    """Most LoRAs for each expert, with `lora_files` for both together; 0: none."""
    loras_for_both: bool = True
    """Whether it takes one list of LoRAs for both experts, beside one for each."""
    lora_pages: bool = False
    """Whether a LoRA may be a Hugging Face repository (owner/repo) or a page of Civitai, which it looks up itself."""
    lora_files: bool = False
    """Whether it takes LoRAs as a sampler here does: files of this machine too, which are uploaded; their SHA-256 and
    their min_match are checked, `auto` is settled by the file, and a scale may change by step."""
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
    free: bool = False
    """Whether it costs nothing, because the user's own server runs it."""
    estimates: Mapping[str, tuple[Price, Price]] = field(default_factory=dict)
    """Resolution -> the lowest and the highest price that clients tell of, where none is known."""

    @property
    def label(self) -> str:
        """Return the name to show."""
        return self.title or self.id

    def name(self, resolution: str) -> str:
        """Return the provider's id for a resolution."""
        return self.id.replace("{resolution}", resolution)
