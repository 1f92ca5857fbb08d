"""The work on the segments of a long clip with this pack's own model: conditions, prompts, LoRAs, sampling, keys.

Everything that can fail without sampling is done before the first segment: ranges, prompts, the LoRAs of all segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.errors import CheckpointError
from ..checkpoint.safetensors_file import read_header
from ..lora.apply import apply_loras, open_loras
from ..lora.header_check import predict_match
from ..lora.match import LoraFile, check_match
from ..lora.probe import check_fits
from ..lora.schedule import lora_hooks
from ..lora.source import Fetch, Find, Stop
from ..lora.svi import has_svi_pair
from ..models.condition import Condition, encode_clip, encode_first_frame, fit
from ..models.extension import end_latent, frames_condition, svi_condition
from ..models.load import Wan22Model
from ..models.text_encoder import encode_texts
from ..models.tiles import Cuts
from ..models.vae import WanVAE, check_vae
from ..request import AUTO, Lora, RequestError, Sampling, check_image, check_prompt, check_size
from ..sampling.hooks import combine, observe
from ..sampling.negative_pass import negative_pass_every
from ..sampling.sampler import sample_latent
from ..sampling.schedule import describe_run
from ..segments import FRAMES, SVI, Extension, Segment, check_segments
from ..video.encoding import Encoding, choose_encoder
from ..video.join_settings import WAYS as COLOUR_WAYS
from ..video.mp4_writer import write_mp4
from ..video.save import stream_frames
from .frames import Colours
from .keys import (
    chain_of_keys,
    fingerprint_of_file,
    fingerprint_of_module,
    fingerprint_of_tensor,
    key_of,
    names_of_function,
)
from .plan import Plan, PlannedSegment, plan_long_clip, plan_warnings
from .run import Before, Encode, Engine, SegmentKeys


@dataclass(frozen=True)
class LongClip:
    """A long clip as it is asked for. Sizes in pixels; `sampling` has all but the seed, which is each segment's."""

    image: torch.Tensor
    segments: tuple[Segment, ...]
    width: int
    height: int
    sampling: Sampling
    negative_prompt: str = ""
    way: str = AUTO
    known_frames: int = Extension.known_frames
    last_image: torch.Tensor | None = None
    loop: bool = False
    cross_fade: int = 0
    colours: Colours = field(default_factory=Colours)
    loras: tuple[Lora, ...] = ()
    negative_pass_every: int = 1

    def loras_of(self, segment: Segment) -> tuple[Lora, ...]:
        """Return all LoRAs of a segment: those of the clip, then its own."""
        return (*self.loras, *segment.loras)

    def plan(self, way: str) -> Plan:
        """Return the plan of the clip when it goes on by a way. Raises RequestError as plan_long_clip."""
        return plan_long_clip(self.segments, Extension(way, self.known_frames), self.width, self.height,
                              cross_fade=self.cross_fade, loop=self.loop)

    def check(self) -> None:
        """Raise RequestError for the first value out of its range."""
        check_image(self.image)
        if self.last_image is not None:
            check_image(self.last_image, "last_image")
            if self.loop:
                raise RequestError("There is a last_image, and loop is on, which ends the clip with its first picture. "
                                   "Disconnect last_image, or switch loop off.")
        check_size(self.width, self.height)
        check_segments(self.segments)
        if self.negative_prompt.strip():
            check_prompt(self.negative_prompt, "negative_prompt")
        if not 0.0 <= self.colours.strength <= 1.0:
            raise RequestError(f"colour_strength is {self.colours.strength:g}; choose 0 to 1.")
        if self.colours.way not in COLOUR_WAYS:
            raise RequestError(f"match_colours is {self.colours.way!r}; choose one of {', '.join(COLOUR_WAYS)}.")
        for segment in self.segments:
            sampling = replace(self.sampling, seed=segment.seed)
            sampling.check()
            lora_hooks(self.loras_of(segment), sampling)
        negative_pass_every(self.negative_pass_every)
        self.plan(FRAMES if self.way == AUTO else self.way)


OnStep = Callable[[PlannedSegment, int, torch.Tensor, Before | None], None]


@dataclass(frozen=True)
class Watch:
    """What is told of a run, and what ends it."""

    stop: Stop = lambda: None
    """Raises to end the run."""
    on_step: OnStep = lambda planned, step, clean, before: None
    """(segment, step from 0, predicted clean latents, normalised; what the segment goes on from)."""
    on_frame: Callable[[PlannedSegment, int], None] = lambda planned, done: None
    """(segment, number of its frames that are decoded)."""


@dataclass(frozen=True)
class Prepared:
    """A long clip of which everything is known that can be known before sampling."""

    plan: Plan
    keys: list[SegmentKeys]
    engine: Engine
    colours: Colours
    steps: str
    """Which expert takes which steps, for the user."""
    warnings: list[str]
    """Sentences for the user."""
    fitted: dict[int, list[str]]
    """By the place of a segment, filled in when it is sampled: a sentence on each of its LoRAs for each expert."""
    cuts: Cuts
    """How its frames are cut when memory is short."""


def prepare(clip: LongClip, model: Wan22Model, text_encoder: Any, vae: Any, encoding: Encoding, find: Find,
            fetch: Fetch, watch: Watch) -> Prepared:
    """Check everything, fetch and check all LoRAs, encode all prompts. Raises RequestError, CheckpointError,
    DownloadError."""
    clip.check()
    encoding.check()
    check_vae(vae)
    files = _open_loras(clip, model, find, fetch, watch.stop)
    way = clip.way if clip.way != AUTO else SVI if all(map(_has_svi_pair, files)) else FRAMES
    plan = clip.plan(way)
    warnings = plan_warnings(plan)
    if way == SVI and not all(map(_has_svi_pair, files)):
        warnings.append("The way is SVI, and no LoRA pair with SVI in its names is on all segments: a model without it "
                        "has not learned to go on that way. Add the pair, or choose the way 'frames'.")
    wanted = {f"prompt of segment {one.place}": one.segment.prompt for one in plan.segments}
    *positives, negative = encode_texts(text_encoder, {**wanted, "negative prompt": clip.negative_prompt})
    encoder, note = choose_encoder(encoding, plan.width, plan.height)
    warnings += filter(None, [note])
    keys = _keys(clip, plan, files, {**asdict(encoding), "encoder": encoder}, _identity(model, text_encoder, vae))
    fitted: dict[int, list[str]] = {}
    cuts = Cuts()
    steady = WanVAE(vae.resident, vae.dtype, cuts) if isinstance(vae, WanVAE) else vae
    engine = _engine(clip, plan, model, steady, _encode_with(encoding, note, watch.stop), files, positives, negative,
                     watch, fitted)
    return Prepared(plan, keys, engine, clip.colours, describe_run(clip.sampling), warnings, fitted, cuts)


def _has_svi_pair(files: Sequence[LoraFile]) -> bool:
    """Tell whether the pair of SVI is among these."""
    return has_svi_pair((file.lora, name) for file in files for name in (file.name, file.lora.source))


def _open_loras(clip: LongClip, model: Wan22Model, find: Find, fetch: Fetch, stop: Stop) -> list[list[LoraFile]]:
    """Find or fetch the LoRAs of all segments and match them by their headers; return those of each segment."""
    config = model.high.model.config
    wanted = [clip.loras_of(segment) for segment in clip.segments]
    distinct = list(dict.fromkeys(lora for loras in wanted for lora in loras))
    opened = open_loras(distinct, find, fetch, stop, lambda facts: check_fits(
        facts, config.num_attention_heads * config.attention_head_dim, config.num_layers))
    for file in opened:
        _, matches = predict_match(file.lora, read_header(file.path), file.name)
        for expert, match in matches.items():
            check_match(file, expert, match)
    by_lora = dict(zip(distinct, opened, strict=True))
    return [[by_lora[lora] for lora in loras] for loras in wanted]


def _identity(model: Wan22Model, text_encoder: Any, vae: Any) -> dict[str, Any]:
    """Return what tells the models from others; ComfyUI's own have their modules under other names than ours."""
    modules = {"text_encoder": _module_of(text_encoder, "cond_stage_model"),
               "vae": _module_of(vae, "first_stage_model")}
    return {**{name: [str(expert.compute_dtype), names_of_function(expert.attend),
                      *(_fingerprint(path) for path in expert.files if path.is_file())]
               for name, expert in model.experts.items()},
            **{name: "" if module is None else fingerprint_of_module(module) for name, module in modules.items()}}


def _fingerprint(path: Path) -> str:
    """Return the fingerprint of a weight file. Raises CheckpointError when it cannot be read."""
    try:
        return fingerprint_of_file(path)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read any more: {error.strerror or error}. Give ComfyUI the right "
                              "to read it, or fetch it again.") from error


def _module_of(wrapper: Any, of_comfyui: str) -> torch.nn.Module | None:
    resident = getattr(wrapper, "resident", None)
    found = getattr(wrapper, of_comfyui, None) if resident is None else resident.module
    return found if isinstance(found, torch.nn.Module) else None


def _keys(clip: LongClip, plan: Plan, files: Sequence[Sequence[LoraFile]], encoding: dict[str, Any],
          identity: dict[str, Any]) -> list[SegmentKeys]:
    """Return the keys of all segments. encoding: all that determines a piece beside its frames."""
    common = {"size": [plan.width, plan.height], "svi": plan.extension.way == SVI,
              "image": fingerprint_of_tensor(clip.image), "negative_prompt": clip.negative_prompt,
              "negative_pass_every": clip.negative_pass_every, "sampling": asdict(replace(clip.sampling, seed=0)),
              **identity}
    of_files = {file.path: _fingerprint(file.path) for loras in files for file in loras}
    own = []
    for one, loras in zip(plan.segments, files, strict=True):
        segment = one.segment
        end = _end_picture(clip, one)
        goes_on, matched = one.place > 1, one.place > 1 and not segment.new_shot
        own.append({"prompt": segment.prompt, "seed": segment.seed, "num_frames": segment.num_frames,
                    "loras": [[of_files[file.path], file.lora.scale, file.lora.expert, asdict(file.lora.schedule)]
                              for file in loras],
                    "end": None if end is None else fingerprint_of_tensor(end),
                    "extension": asdict(plan.extension) if goes_on else None,
                    "colours": asdict(clip.colours) if matched else None})
    chain = chain_of_keys(common, own)
    return [SegmentKeys(key, key_of(key, plan.tail), key_of(key, one.start, one.stop, one.fade, encoding))
            for key, one in zip(chain, plan.segments, strict=True)]


def _end_picture(clip: LongClip, planned: PlannedSegment) -> torch.Tensor | None:
    """Return the picture that a segment ends with, or None."""
    if not planned.is_last:
        return None
    return clip.image if clip.loop else clip.last_image


def _engine(clip: LongClip, plan: Plan, model: Wan22Model, vae: Any, encode: Encode,
            files: Sequence[Sequence[LoraFile]], positives: Sequence[list], negative: list, watch: Watch,
            fitted: dict[int, list[str]]) -> Engine:
    """Return the work on a segment. fitted: gets what is to be told of the segments that are sampled."""
    width, height = plan.width, plan.height

    def condition(planned: PlannedSegment, before: Before | None) -> Condition:
        num_frames, end = planned.segment.num_frames, _end_picture(clip, planned)
        if plan.extension.way == SVI:
            anchor = encode_clip(vae, fit(clip.image.float().cpu(), width, height))
            return svi_condition(anchor, None if before is None else before.last_latent, num_frames,
                                 None if end is None else end_latent(vae, end, width, height, num_frames))
        if before is None:
            return encode_first_frame(vae, clip.image, width, height, num_frames, last_image=end)
        return frames_condition(vae, before.tail[-plan.extension.overlap :], num_frames, end)

    def sample(planned: PlannedSegment, known: Condition, before: Before | None) -> torch.Tensor:
        index = planned.place - 1
        patched, fitted[planned.place] = apply_loras(model, files[index])
        sampling = replace(clip.sampling, seed=planned.segment.seed)
        hooks = combine(lora_hooks(clip.loras_of(planned.segment), sampling), observe(
            before_pass=lambda step, expert: watch.stop(),
            after_step=lambda step, clean: watch.on_step(planned, step, clean, before)),
            negative_pass_every(clip.negative_pass_every))
        return sample_latent(patched, positives[index], negative, known, sampling, hooks)["samples"]

    def decode(planned: PlannedSegment, samples: torch.Tensor) -> Iterator[torch.Tensor]:
        done = 0
        for piece in stream_frames(vae, {"samples": samples}):
            watch.stop()
            done += len(piece)
            watch.on_frame(planned, done)
            yield piece

    return Engine(condition, sample, decode, encode)


def _encode_with(encoding: Encoding, note: str, stop: Stop) -> Encode:
    """Return what writes frames as a piece, with the encoder that `choose_encoder` gave with that note.

    It raises RequestError when another one had to do it, for pieces of two do not fit into one file.
    """
    def encode(frames: Iterator[torch.Tensor], path: Path) -> None:
        written = write_mp4(lambda: path, frames, encoding, {}, stop=stop)
        if written.note != note:
            raise RequestError(f"{written.note} It had worked when the run began. Run the same again: nothing is "
                               "sampled twice, and all segments are encoded by what works then.")

    return encode


def disk_bytes(plan: Plan, places: Sequence[int]) -> int:
    """Estimate the bytes on the disk that segments at these places need, and the clip of all of them, twice."""
    pixels, latents = plan.width * plan.height, plan.width * plan.height // 64
    video = 0.1 * pixels
    needed = 2 * video * plan.num_frames
    for one in plan.segments:
        if one.place in places:
            count = (one.segment.num_frames - 1) // 4 + 1
            needed += 64 * latents * (count + 1) + 12 * pixels * plan.tail + video * one.segment.num_frames
    return int(needed)
