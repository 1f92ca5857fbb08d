"""Long Clip on ComfyUI: its folder, progress, preview, Stop and report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.utils
import torch

from ..long_clip.clip import make_clip
from ..long_clip.extend import EarlierClip, clip_of_images, clip_of_latent, clip_of_source
from ..long_clip.folder import SO_FAR, SegmentFolder
from ..long_clip.make import LongClip, Prepared, Watch, prepare
from ..long_clip.plan import PlannedSegment
from ..long_clip.progress import Progress
from ..long_clip.report import describe_start, describe_stop
from ..long_clip.run import Before, SegmentFiles, first_missing, read_latents
from ..models.latents import normalise
from ..models.load import Wan22Model
from ..request import FPS
from ..sampling.schedule import step_count
from .files import output_folder_of
from .folders import lora_file
from .loras import downloader
from .mp4 import new_mp4
from .node import bind_show_text, preview_of, stop_if_asked
from .video import clip_preview, clip_source, video_from

FOLDER_SUFFIX = "_segments"
Result = tuple[Any, str, dict[str, Any], dict[str, Any] | None]
"""VIDEO, the report, LATENT of the last segment, and the node's `ui` output."""


def make_long_clip(hidden: Any, clip: LongClip, model: Wan22Model, text_encoder: Any, vae: Any,
                   mp4_values: Mapping[str, Any]) -> Result:
    """Make a long clip, or what of it is not on the disk yet.

    hidden: the node's hidden inputs (unique_id, prompt, extra_pnginfo). mp4_values: those of Save MP4. Raises
    RequestError, CheckpointError or DownloadError; the segments that are finished are kept, as they are on Stop.
    """
    node_id = hidden.unique_id
    say = bind_show_text(node_id)
    mp4, settings, lacking = new_mp4(hidden, clip.width, clip.height, mp4_values)
    folder = SegmentFolder(output_folder_of(settings.filename_prefix, clip.width, clip.height, FOLDER_SUFFIX))
    shown = _OnNode(say, model)
    watch = Watch(stop_if_asked, shown.step, shown.frame)
    prepared = prepare(clip, model, text_encoder, vae, mp4.encoding, lora_file, downloader(node_id), watch)
    try:
        finished = make_clip(prepared, folder, mp4, stop_if_asked,
                             lambda found: shown.begin(prepared, found, step_count(clip.sampling)))
    except comfy.model_management.InterruptProcessingException:
        shown.stopped(folder)
        raise
    report = "\n".join(filter(None, (*finished.report, lacking)))
    say(report)
    written = finished.written
    return (video_from(written.path), report, {"samples": read_latents(finished.segments[-1].latents)},
            clip_preview(written.path, written.clip))


def earlier_clip(vae: Any, clip: Any) -> tuple[EarlierClip, str]:
    """Return a LATENT, a VIDEO or an IMAGE as a clip to go on from, and a sentence when its rate is not the model's.

    Raises RequestError for one that cannot be read, and for a LATENT of another model.
    """
    if isinstance(clip, dict):
        return clip_of_latent(vae, clip), ""
    if isinstance(clip, torch.Tensor):
        return clip_of_images(clip), ""
    source = clip_source(clip, "The video")
    rate = float(source.rate)
    note = "" if abs(rate - FPS) < 0.01 else (f"The video has {rate:g} frames a second and Wan 2.2 makes {FPS}: what "
                                              "moves changes its speed when both are played at one rate.")
    return clip_of_source(source), note


class _OnNode:
    """What the node shows while its segments are made."""

    def __init__(self, say: Any, model: Wan22Model) -> None:
        self._say, self._preview = say, preview_of(model.high)

    def begin(self, prepared: Prepared, found: list[SegmentFiles], steps: int) -> None:
        """Show what is to be made; note which segments are to be sampled, of so many steps each."""
        segments = prepared.plan.segments
        sampled = {one.place: steps for one, files in zip(segments, found, strict=True) if files.latents is None}
        self._progress = Progress(sampled, len(segments))
        self._bar = comfy.utils.ProgressBar(max(1, self._progress.total))
        self._place = first_missing(found) or len(segments)
        self._say("\n".join(filter(None, (describe_start(found), *prepared.warnings, prepared.plan.describe(),
                                         prepared.steps))))

    def stopped(self, folder: SegmentFolder) -> None:
        """Show in which segment the run was stopped."""
        so_far = folder.path / SO_FAR
        self._say(describe_stop(self._place, self._progress.count, so_far if so_far.is_file() else None))

    def step(self, planned: PlannedSegment, step: int, clean: torch.Tensor, before: Before | None) -> None:
        """Show a step, and in the preview the joint: the last frame before it, the first behind it, and the last."""
        seen = clean
        if before is not None:
            first = (planned.overlap - 1) // 4 + 1
            seen = torch.cat([normalise(before.last_latent), clean[:, :, first : first + 1], clean[:, :, -1:]], 2)
        self._place = planned.place
        self._say(self._progress.step(planned.place, step))
        self._bar.update_absolute(self._progress.done, self._progress.total, self._preview(seen))

    def frame(self, planned: PlannedSegment, done: int) -> None:
        """Show how many frames of a segment are decoded."""
        self._place = planned.place
        self._say(self._progress.frames(planned.place, done, planned.segment.num_frames))
