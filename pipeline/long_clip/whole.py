"""The one MP4 of a long clip, from the pieces of its segments; and the joints between them, measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import torch

from ..files.atomic import NO_SPACE, NewFile, advice_on, new_file, remove_if_present, replace_file
from ..quality.seams import REACH, Seam, measure_seam
from ..request import RequestError
from ..video.mp4_writer import Written
from ..video.probe import VideoFacts
from ..video.save import Mp4
from ..video.sound import read_sound
from ..video.source import file_source
from .folder import SO_FAR, SegmentFolder, disk_error
from .pieces import join_pieces
from .plan import Plan, PlannedSegment
from .run import Engine, SegmentFiles, read_end


def write_so_far(plan: Plan, made: Sequence[SegmentFiles], folder: SegmentFolder, engine: Engine, mp4: Mp4,
                 stop: Callable[[], None]) -> str:
    """Write the segments that are finished as one file in the folder, in place of the one before.

    Nothing needs that file: when it cannot be replaced, as on Windows while a player shows it, a sentence says so.
    Raises RequestError for a full disk.
    """
    try:
        with replace_file(folder.path, ".mp4") as file:
            _write(plan, made, folder, engine, mp4, file.unfinished, stop)
            file.path = folder.path / SO_FAR
    except OSError as error:
        if error.errno in NO_SPACE:
            raise disk_error(error, folder.path, f"The clip up to segment {len(made)}") from error
        return f"{SO_FAR} could not be written behind segment {len(made)}: {error.strerror or error}."
    return ""


def write_whole(plan: Plan, made: Sequence[SegmentFiles], folder: SegmentFolder, engine: Engine, mp4: Mp4,
                stop: Callable[[], None]) -> Written:
    """Write the whole clip under its own name; the file of the unfinished one goes."""
    path = mp4.new_path()
    _, silence = read_sound(mp4.audio)
    try:
        with new_file(mp4.new_path) as file:
            facts = _write(plan, made, folder, engine, mp4, file.unfinished, stop)
    except OSError as error:
        raise RequestError(f"{path} could not be written: {error.strerror or error}. {advice_on(error)} or choose "
                           "another folder in filename_prefix, and run the same again: its segments are kept.",
                           ) from error
    remove_if_present(folder.path / SO_FAR)
    return Written(file.path, silence, facts)


def _write(plan: Plan, made: Sequence[SegmentFiles], folder: SegmentFolder, engine: Engine, mp4: Mp4, path: Path,
           stop: Callable[[], None]) -> VideoFacts:
    """Write the pieces, and behind them the frames of the last segment that would fade into a next one."""
    ending = NewFile(folder.path, ".mp4").unfinished
    last = plan.segments[len(made) - 1]
    pieces: list[Path] = [files.piece for files in made]
    try:
        if last.ends:
            engine.encode(iter([end_frames(last, read_end(made[-1].end).tail)]), ending)
            pieces.append(ending)
        sound, _ = read_sound(mp4.audio)
        return join_pieces(pieces, path, mp4.encoding.rate, mp4.metadata, sound, stop)
    finally:
        remove_if_present(ending)


def end_frames(planned: PlannedSegment, tail: torch.Tensor) -> torch.Tensor:
    """Return the frames of a segment behind its piece, (n, H, W, 3), for a clip that ends with it; tail: its last."""
    start = len(tail) - (planned.segment.num_frames - planned.stop)
    return tail[start : start + planned.ends]


def measure_joint(plan: Plan, made: Sequence[SegmentFiles], place: int) -> Seam:
    """Measure the joint in front of a segment, from 2 on, on the frames that the file shows."""
    shown = [file_source(files.piece, files.piece.name) for files in (made[0], *made[place - 2 : place])]
    first = next(shown[0].frames())
    before = torch.stack(tuple(deque(shown[1].frames(), maxlen=REACH)))
    after = torch.stack(tuple(islice(shown[2].frames(), REACH)))
    return measure_seam(before, after, first, faded=plan.segments[place - 1].fade)
