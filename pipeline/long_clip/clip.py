"""A long clip from its first segment to its one file, with its report: what the node, scripts and benchmarks run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..files.atomic import advice_on, check_writable, remove_unfinished
from ..files.names import size_text
from ..quality.seams import Seam
from ..request import RequestError
from ..video.mp4_writer import Written
from ..video.save import Mp4
from ..video.sound import read_sound
from .cuts_file import keep_cuts
from .folder import CUTS, SO_FAR, SegmentFolder, check_space
from .make import Prepared, disk_bytes
from .report import describe_folder, describe_segment, segment_warnings
from .run import SegmentFiles, find_segments, make_segments
from .whole import measure_joint, write_so_far, write_whole


@dataclass
class Finished:
    """A long clip that has been made."""

    written: Written
    segments: list[SegmentFiles]
    seams: dict[int, Seam] = field(default_factory=dict)
    """By the place of the segment behind the joint, from 2."""
    report: list[str] = field(default_factory=list)
    """Lines, the warnings first: a node shows only a few."""


def make_clip(prepared: Prepared, folder: SegmentFolder, mp4: Mp4, stop: Callable[[], None] = lambda: None,
              begin: Callable[[list[SegmentFiles]], None] = lambda found: None,
              on_segment: Callable[[int, SegmentFiles], None] = lambda place, files: None) -> Finished:
    """Make what is not in the folder yet, and write the clip; after each new segment what there is of it.

    begin(found) is told what is there, on_segment(place, its files) of each that is whole; stop() raises to end the
    run. Raises RequestError, before anything is made, for sound that no MP4 can hold and for folders that cannot be
    written to; when the disk refuses; and what sampling raises: all segments before are kept.
    """
    plan = prepared.plan
    read_sound(mp4.audio)
    for path in (folder.path / SO_FAR, mp4.new_path()):
        _check_writable(path)
    remove_unfinished(folder.path)
    found = find_segments(folder, prepared.keys)
    missing = [place for place, files in enumerate(found, 1) if not files.whole]
    check_space(folder.path, disk_bytes(plan, missing), shutil.disk_usage(folder.path).free)
    keep_cuts(prepared.cuts, folder.path / f"{CUTS}{prepared.keys[0].latents}.json")
    begin(found)

    made: list[SegmentFiles] = []
    seams: dict[int, Seam] = {}
    told: list[str] = []
    for files in make_segments(plan, prepared.keys, found, folder, prepared.engine, prepared.colours):
        made.append(files)
        place = len(made)
        if place > 1:
            seams[place] = measure_joint(plan, made, place)
        if place in missing and place < len(plan.segments):
            told.append(write_so_far(plan, made, folder, prepared.engine, mp4, stop))
        on_segment(place, files)
    written = write_whole(plan, made, folder, prepared.engine, mp4, stop)
    warnings = [*filter(None, [written.note, *told]), *prepared.warnings]
    if prepared.cuts.is_anew:
        warnings.append("There was less memory free than when the clip was begun: from there on its frames are cut "
                        "into smaller tiles, which changes them slightly.")
    lines = [plan.describe(), prepared.steps]
    for one, there in zip(plan.segments, found, strict=True):
        warnings += segment_warnings(one, there, seams.get(one.place))
        lines += describe_segment(one, there, seams.get(one.place), prepared.fitted.get(one.place, []))
    keys = {key for one in prepared.keys for key in (one.latents, one.end, one.piece)}
    lines.append(describe_folder(folder.path, size_text(folder.size()), folder.others(keys)))
    return Finished(written, made, seams, [*warnings, *lines])


def _check_writable(path: Path) -> None:
    """Raise RequestError for a file that could not be written after all the work."""
    try:
        check_writable(path)
    except OSError as error:
        raise RequestError(f"Nothing can be written to {path.parent}: {error.strerror or error}. {advice_on(error)}, "
                           "or choose another folder in filename_prefix.") from error
