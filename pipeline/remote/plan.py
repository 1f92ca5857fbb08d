"""Fit a ClipRequest to a hosted model before anything is sent: what will be asked, and what it cannot honour."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..download.source import CIVITAI_HOSTS, CIVITAI_MODEL, HUB_REPO, full_name, is_remote, parse_source
from ..http.address import may_be_public, parse_url
from ..http.errors import DownloadError, redact
from ..lora.expert import expert_by_name
from ..request import ALL_STEPS, AUTO, BOTH, DEFAULT_MIN_MATCH, FPS, HIGH, LOW, ClipRequest, Lora
from .errors import ErrorKind, RemoteError
from .model import RemoteModel
from .options import Option

TRIM, KEEP, REFUSE = LONGER_CLIPS = ("trim", "keep", "refuse")
"""What to do when a clip must be bought longer than asked: cut it here, keep it, or do not buy it."""
LONG_PROMPT = 1600
"""Characters at which an English prompt comes near 512 tokens."""

FindLora = Callable[[str], Path | None]
"""A LoRA's source -> the file of this machine that it names; None for none."""


@dataclass(frozen=True)
class Plan:
    """A clip as a model will be asked for it."""

    model: RemoteModel
    clip: ClipRequest
    loras: tuple[tuple[str, float, str], ...]
    """(https link of a file or a repository, or what the model looks up itself; scale; BOTH, HIGH or LOW, or AUTO where
    the model's server reads the file)."""
    num_frames: int | None
    """Frames to ask for; None where clips are bought by the second."""
    duration: int | None
    """Seconds to buy; None where frames are asked for."""
    changes: Mapping[str, str]
    """Input -> a sentence on how it will be ignored or changed."""
    inferred: tuple[str, ...] = ()
    """Sentences on experts that were inferred from a LoRA's file name."""
    last_image: bool = False
    """Whether there is a picture that the clip ends with."""
    lora_files: Mapping[str, Path] = field(default_factory=dict)
    """What stands in `loras` for a file of this machine -> the file."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Further parameters, see Target."""

    @property
    def notes(self) -> tuple[str, ...]:
        """All sentences for the user."""
        return (*self.changes.values(), *self.inferred)

    @property
    def model_name(self) -> str:
        return self.model.name(self.clip.resolution)

    @property
    def steps(self) -> int:
        """Denoising steps to ask for, where the model takes them."""
        return min(self.clip.num_inference_steps, self.model.max_steps)

    @property
    def billed_seconds(self) -> float:
        return float(self.duration) if self.duration else (self.num_frames or self.clip.num_frames) / FPS


def plan_clip(model: RemoteModel, clip: ClipRequest, longer_clips: str,
              find_lora: FindLora = lambda source: None, last_image: bool = False) -> Plan:
    """Return the plan of a clip; longer_clips: one of LONGER_CLIPS. last_image: whether a last picture is given.

    Raises RemoteError (VALIDATION) for LoRAs, a last picture, a size or a length that the model cannot do: leaving them
    out helps nobody.
    """
    if clip.resolution not in model.resolutions:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} makes {' or '.join(model.resolutions)}; "
                          f"{clip.resolution} is asked for. Nothing was sent.")
    if last_image:
        check_takes_last_image(model)
    changes: dict[str, str] = {}
    num_frames, duration = _length(model, clip.num_frames, longer_clips, changes)
    if clip.negative_prompt.strip() and not model.negative_prompt:
        changes["negative_prompt"] = "The model takes no negative prompt: yours is not sent."
    if not model.max_steps:
        changes["num_inference_steps"] = ("The model sets the number of steps itself: "
                                          f"{clip.num_inference_steps} is not sent.")
    elif clip.num_inference_steps > model.max_steps:
        changes["num_inference_steps"] = (f"The model takes at most {model.max_steps} steps: "
                                          f"{clip.num_inference_steps} becomes {model.max_steps}.")
    if not model.guidance:
        changes["guidance_scale"] = f"The model sets the guidance itself: {clip.guidance_scale:g} is not sent."
    if len(clip.prompt) > LONG_PROMPT:
        changes["prompt"] = f"The prompt has {len(clip.prompt)} characters; what is beyond 512 tokens is ignored."
    if (unchecked := _unchecked(clip.loras)) and not model.lora_files:
        changes["loras"] = f"The provider downloads the LoRA itself and does not check it against your {unchecked}."
    loras, inferred = _loras(model, clip.loras, find_lora)
    files = {lora.source: path for lora in clip.loras if lora.scale and (path := find_lora(lora.source)) is not None}
    return Plan(model, clip, loras, num_frames, duration, changes, inferred, last_image, files)


def _unchecked(loras: tuple[Lora, ...]) -> str:
    """Return the names of the checks that LoRAs ask for beyond the defaults; "" for none."""
    sent = sent_loras(loras)
    asked = {"sha256": any(lora.sha256 for lora in sent),
             "min_match": any(lora.min_match != DEFAULT_MIN_MATCH for lora in sent)}
    return " and ".join(name for name, is_asked in asked.items() if is_asked)


def _length(model: RemoteModel, wanted: int, longer_clips: str, changes: dict[str, str],
            ) -> tuple[int | None, int | None]:
    """Return the frames to ask for or the seconds to buy, the other being None."""
    if model.num_frames is not None:
        fewest, most = model.num_frames
        if wanted > most:
            raise RemoteError(ErrorKind.VALIDATION, f"{model.label} makes {fewest} to {most} frames; {wanted} are "
                              "asked for. Nothing was sent.")
        if wanted < fewest:
            changes["num_frames"] = _note_longer(model, longer_clips, wanted, f"{fewest} frames")
        return max(wanted, fewest), None
    duration = next((d for d in model.durations if wanted <= d * FPS + 1), None)
    if duration is None:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} makes clips of "
                          f"{' or '.join(map(str, model.durations))} seconds; {wanted} frames are "
                          f"{wanted / FPS:.1f} seconds. Nothing was sent.")
    if wanted != duration * FPS + 1:
        changes["num_frames"] = _note_longer(model, longer_clips, wanted, f"{duration} seconds")
    return None, duration


def _note_longer(model: RemoteModel, longer_clips: str, wanted: int, least: str) -> str:
    if longer_clips == REFUSE:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} makes at least {least}, and {wanted} frames are asked "
                          "for. Choose trim or keep for longer_clips. Nothing was sent.")
    then = f"the clip is cut to {wanted} frames here" if longer_clips == TRIM else "all of it is kept"
    return f"{least} are bought and billed; {then}."


def check_takes_loras(model: RemoteModel) -> None:
    """Raise RemoteError (VALIDATION) for a model without LoRAs."""
    if not model.loras:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} takes no LoRAs. Choose a model that does, or "
                          "disconnect them. Nothing was sent.")


def check_takes_last_image(model: RemoteModel) -> None:
    """Raise RemoteError (VALIDATION) for a model that takes no picture for the end of the clip."""
    if not model.last_image:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} takes no last_image. Choose a model that does, or "
                          "disconnect it. Nothing was sent.")


def _loras(model: RemoteModel, loras: tuple[Lora, ...], find_lora: FindLora,
           ) -> tuple[tuple[tuple[str, float, str], ...], tuple[str, ...]]:
    """Return Plan.loras and Plan.inferred."""
    if loras:
        check_takes_loras(model)
    if not model.lora_files and any(lora.schedule != ALL_STEPS for lora in sent_loras(loras)):
        raise RemoteError(ErrorKind.VALIDATION, "A LoRA acts in some of the steps, or fades; hosted models keep a LoRA "
                          "at one scale in all of them. Set its start_percent to 0, end_percent to 1, fade_in and "
                          "fade_out to 0, or use Wan 2.2 Sampler. Nothing was sent.")
    inferred: list[str] = []
    sent = [(lora, _link(model, lora, find_lora)) for lora in sent_loras(loras)]
    unnamed = AUTO if model.lora_files else BOTH
    asked = tuple((link, lora.scale, expert_of(lora, link, inferred, unnamed)) for lora, link in sent)
    low, high = model.lora_scales
    for _, scale, _ in asked:
        if not low <= scale <= high:
            raise RemoteError(ErrorKind.VALIDATION, f"{model.label} takes LoRA scales of {low:g} to {high:g}; "
                              f"{scale:g} is asked for. Nothing was sent.")
    if model.lora_files and len(asked) > model.loras:
        raise RemoteError(ErrorKind.VALIDATION, f"{model.label} takes at most {model.loras} LoRAs; {len(asked)} are "
                          "asked for. Nothing was sent.")
    for expert in (HIGH, LOW):
        count = sum(chosen in (BOTH, expert) for *_, chosen in asked)
        if count > model.loras:
            raise RemoteError(ErrorKind.VALIDATION, f"{model.label} takes at most {model.loras} LoRAs an expert; "
                              f"{count} are for the {expert}-noise expert. Nothing was sent.")
    return asked, tuple(inferred)


def sent_loras(loras: tuple[Lora, ...]) -> list[Lora]:
    """Return those that are sent: one with the scale 0 does nothing."""
    return [lora for lora in loras if lora.scale != 0.0]


def expert_of(lora: Lora, link: str, inferred: list[str], unnamed: str = BOTH) -> str:
    """Return the chosen expert; for `auto`, the one that the link's path names, since the file is not read.

    A sentence on what was inferred is added to `inferred`. unnamed: returned where the path names none.
    """
    if lora.expert != AUTO:
        return lora.expert
    path = full_name(link, None)
    found = expert_by_name(path)
    if found is None:
        return unnamed
    expert, why = found
    inferred.append(f"The LoRA {PurePosixPath(path).name} goes to the {expert}-noise expert alone: {why}.")
    return expert


def _link(model: RemoteModel, lora: Lora, find_lora: FindLora) -> str:
    """Return the link of a LoRA, or its page where the model looks it up; the source of a file that may be uploaded.

    Raises RemoteError (VALIDATION) for another file of this machine.
    """
    if model.lora_files and find_lora(lora.source) is not None:
        return lora.source
    if model.lora_files and not is_remote(lora.source):
        raise RemoteError(ErrorKind.VALIDATION, f"There is no {lora.source!r} in the loras folder, and it is not a "
                          "link. Give a file's name as ComfyUI's Load LoRA lists it, or a link. Nothing was sent.")
    if find_lora(lora.source) is not None or not is_remote(lora.source):  # a local sampler takes the file first, too
        raise RemoteError(ErrorKind.VALIDATION, f"The LoRA {lora.source!r} is a file on this machine, which no "
                          "provider can read. Give an https link to it. Nothing was sent.")
    return _weights_link(lora.source, model)


def _weights_link(source: str, model: RemoteModel) -> str:
    """Return the https link of a .safetensors file on a public host, without following it.

    For a model with `lora_pages` a repository of Hugging Face or a page of Civitai is returned as it is, for one with
    `lora_files` any link. Else a repository becomes the https link of its page, of which lora_links.with_files takes
    the file.

    Raises RemoteError (VALIDATION) for anything else.
    """
    pages = model.lora_pages
    try:
        remote = parse_source(source)
        url = parse_url(remote.link)
    except DownloadError as error:
        raise RemoteError(ErrorKind.VALIDATION, f"{error} Nothing was sent.") from None
    if model.lora_files and may_be_public(url.host):
        return url.text
    if pages and remote.look_up == CIVITAI_MODEL:
        return url.text
    if pages and remote.look_up == HUB_REPO and (remote.revision, remote.folder) == ("main", ""):
        return "/".join(url.path.split("/")[1:3])
    if url.host.removeprefix("www.") in CIVITAI_HOSTS:
        if pages:
            return url.text
        raise RemoteError(ErrorKind.VALIDATION, f"{redact(source)}: Civitai gives files to signed-in users alone, and "
                          "a provider is not signed in. Give a link that anybody may open. Nothing was sent.")
    if remote.look_up == HUB_REPO:
        return url.text
    if not url.path.lower().endswith(".safetensors"):
        raise RemoteError(ErrorKind.VALIDATION, f"{url} does not end in .safetensors, the only LoRA file that "
                          "providers take. Nothing was sent.")
    if not may_be_public(url.host):
        raise RemoteError(ErrorKind.VALIDATION, f"{url} is on this machine or its network, where no provider can read "
                          "it. Nothing was sent.")
    return url.text
