"""What a model will be asked for a clip, and what of the request it cannot honour: settled before anything is sent.

The link under which a provider fetches a LoRA: only looked at here, never followed.

A hosted model: what it is called, what it takes, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..download.source import CIVITAI_HOSTS, full_name, is_remote, parse_source
from ..http.address import may_be_public, parse_url
from ..http.errors import DownloadError, redact
from ..lora.expert import expert_by_name
from ..request import AUTO, BOTH, FPS, HIGH, LOW, ClipRequest, Lora
from .errors import Kind, RemoteError

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


def weights_link(source: str) -> str:
    """An https link to a .safetensors file on a public host. Raises RemoteError (VALIDATION) for anything else."""
    try:
        remote = parse_source(source)
        url = parse_url(remote.link)
    except DownloadError as error:
        raise RemoteError(Kind.VALIDATION, f"{error} Nothing was sent.") from None
    if url.host.removeprefix("www.") in CIVITAI_HOSTS:
        raise RemoteError(Kind.VALIDATION, f"{redact(source)}: Civitai hands files out to signed-in users, and a "
                          "provider is not signed in. Give a link that anybody may open. Nothing was sent.")
    if remote.look_up:
        raise RemoteError(Kind.VALIDATION, f"{source} names a repository; a provider needs the file. Give "
                          "owner/repo/file.safetensors or the file's https link. Nothing was sent.")
    if not url.path.lower().endswith(".safetensors"):
        raise RemoteError(Kind.VALIDATION, f"{url} is not the link of a .safetensors file, the only kind of LoRA "
                          "that is taken. Nothing was sent.")
    if not may_be_public(url.host):
        raise RemoteError(Kind.VALIDATION, f"{url} is on this machine or its network, where no provider can read it. "
                          "Nothing was sent.")
    return url.text

TRIM, KEEP, REFUSE = FRAME_CHOICES = ("trim", "keep", "refuse")
LONG_PROMPT = 1600
"""Characters, beyond which English prompts come near 512 tokens."""


@dataclass(frozen=True)
class Plan:
    """A clip as it will be asked of a model."""

    model: RemoteModel
    clip: ClipRequest
    loras: tuple[tuple[str, float, str], ...]
    """(https link, scale, BOTH, HIGH or LOW)."""
    ask_frames: int | None
    """Frames to ask for, where frames can be."""
    duration: int | None
    """Seconds to buy, where they are bought."""
    changed: Mapping[str, str]
    """Input -> a sentence on how it will be ignored or changed."""
    settled: tuple[str, ...] = ()
    """Sentences on what was left open and is settled by a name alone."""

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.changed.values(), *self.settled)

    @property
    def model_name(self) -> str:
        return self.model.name(self.clip.resolution)

    @property
    def steps(self) -> int:
        """Denoising steps to ask for, where they can be."""
        return min(self.clip.num_inference_steps, self.model.max_steps)

    @property
    def billed_seconds(self) -> float:
        return float(self.duration) if self.duration else (self.ask_frames or self.clip.num_frames) / FPS


def plan_clip(model: RemoteModel, clip: ClipRequest, frames: str,
              find_lora: Callable[[str], Path | None] = lambda source: None) -> Plan:
    """Settle what to send; `frames` is one of FRAME_CHOICES, for a clip that is bought longer than asked.

    find_lora: as Desk has it; of no use where the LoRAs are not known yet.
    Raises RemoteError (VALIDATION) for what the model cannot do and nobody would want left out: LoRAs, length.
    """
    notes: dict[str, str] = {}
    ask, duration = _length(model, clip, frames, notes)
    if clip.negative_prompt.strip() and not model.negative_prompt:
        notes["negative_prompt"] = "It takes no negative prompt: yours is not sent."
    if not model.max_steps:
        notes["num_inference_steps"] = (f"It decides on the number of steps itself: {clip.num_inference_steps} is not "
                                        "sent.")
    elif clip.num_inference_steps > model.max_steps:
        notes["num_inference_steps"] = (f"It takes {model.max_steps} steps at most: {clip.num_inference_steps} become "
                                        f"{model.max_steps}.")
    if not model.guidance:
        notes["guidance_scale"] = f"It decides on the guidance itself: {clip.guidance_scale:g} is not sent."
    if len(clip.prompt) > LONG_PROMPT:
        notes["prompt"] = f"The prompt is {len(clip.prompt)} characters long; what is beyond 512 tokens is not read."
    if any(lora.sha256 for lora in clip.loras if lora.scale):
        notes["loras"] = "It fetches a LoRA's file itself, and nobody checks that against your sha256."
    settled: list[str] = []
    loras = _loras(model, clip.loras, find_lora, settled)
    return Plan(model, clip, loras, ask, duration, notes, tuple(settled))


def _length(model: RemoteModel, clip: ClipRequest, frames: str, notes: dict[str, str]) -> tuple[int | None, int | None]:
    wanted = clip.num_frames
    if model.num_frames is not None:
        fewest, most = model.num_frames
        if wanted > most:
            raise RemoteError(Kind.VALIDATION, f"{model.id} makes {fewest} to {most} frames; {wanted} are asked for. "
                              "Nothing was sent.")
        if wanted < fewest:
            _note_longer(model, frames, wanted, f"{fewest} frames", notes)
        return max(wanted, fewest), None
    duration = next((d for d in model.durations if wanted <= d * FPS + 1), None)
    if duration is None:
        raise RemoteError(Kind.VALIDATION, f"{model.id} makes clips of {' or '.join(map(str, model.durations))} "
                          f"seconds; {wanted} frames are {wanted / FPS:.1f} seconds. Nothing was sent.")
    if wanted != duration * FPS + 1:
        _note_longer(model, frames, wanted, f"{duration} seconds", notes)
    return None, duration


def _note_longer(model: RemoteModel, frames: str, wanted: int, least: str, notes: dict[str, str]) -> None:
    if frames == REFUSE:
        raise RemoteError(Kind.VALIDATION, f"{model.id} makes {least} at least, and {wanted} frames are asked for. "
                          "Choose trim or keep for longer_clips. Nothing was sent.")
    then = f"cut to {wanted} here" if frames == TRIM else "kept as they come"
    notes["num_frames"] = f"{least} are bought and billed, and {then}."


def check_takes_loras(model: RemoteModel) -> None:
    """Raise RemoteError (VALIDATION) for a model without LoRAs."""
    if not model.loras:
        raise RemoteError(Kind.VALIDATION, f"{model.id} takes no LoRAs. Choose a model that does, or disconnect them. "
                          "Nothing was sent.")


def _loras(model: RemoteModel, loras: tuple[Lora, ...], find: Callable[[str], Path | None], settled: list[str],
           ) -> tuple[tuple[str, float, str], ...]:
    if loras:
        check_takes_loras(model)
    sent = [(lora, _link(lora, find)) for lora in loras if lora.scale != 0.0]
    asked = tuple((link, lora.scale, _expert(lora, link, settled)) for lora, link in sent)
    low, high = model.lora_scales
    for _, scale, _ in asked:
        if not low <= scale <= high:
            raise RemoteError(Kind.VALIDATION, f"{model.id} takes LoRA scales of {low:g} to {high:g}; {scale:g} is "
                              "asked for. Nothing was sent.")
    for expert in (HIGH, LOW):
        count = sum(chosen in (BOTH, expert) for *_, chosen in asked)
        if count > model.loras:
            raise RemoteError(Kind.VALIDATION, f"{model.id} takes {model.loras} LoRAs an expert at most; {count} are "
                              f"for the {expert}-noise one. Nothing was sent.")
    return asked


def _expert(lora: Lora, link: str, settled: list[str]) -> str:
    """The expert that was chosen; of `auto`, the one that the link's path speaks of: the file is not read."""
    if lora.expert != AUTO:
        return lora.expert
    path = full_name(link, None)
    found = expert_by_name(path)
    if found is None:
        return BOTH
    expert, why = found
    settled.append(f"The LoRA {PurePosixPath(path).name} goes to the {expert}-noise expert alone: {why}.")
    return expert


def _link(lora: Lora, find: Callable[[str], Path | None]) -> str:
    if find(lora.source) is not None or not is_remote(lora.source):  # as a sampler here would take it
        raise RemoteError(Kind.VALIDATION, f"The LoRA {lora.source!r} is a file of this machine, which no provider can "
                          "read. Give an https link to it. Nothing was sent.")
    return weights_link(lora.source)
