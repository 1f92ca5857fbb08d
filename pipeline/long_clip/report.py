"""What a long clip tells the user when it is done: each segment, each joint, and where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..quality.seams import Seam
from .plan import PlannedSegment
from .run import SegmentFiles, first_missing


def describe_start(found: Sequence[SegmentFiles]) -> str:
    """Say where a run goes on; an empty string when it begins with the first segment."""
    first = first_missing(found)
    if first is None:
        return "All segments are on the disk: only the file is put together anew."
    if first == 1:
        return ""
    there = "segment 1 is" if first == 2 else f"segments 1 to {first - 1} are"
    return f"Goes on with segment {first} of {len(found)}: {there} on the disk."


def describe_stop(place: int, count: int, so_far: Path | None) -> str:
    """Say in which segment of how many a run was stopped, and where what is finished can be seen."""
    seen = "" if so_far is None else f" What is finished: {so_far}."
    return f"Stopped in segment {place} of {count}. Run the same again: it goes on there.{seen}"


def describe_segment(planned: PlannedSegment, found: SegmentFiles, seam: Seam | None, fitted: Sequence[str],
                     ) -> list[str]:
    """Return a line on a segment and its joint, and those on its LoRAs; found: what was there before the run."""
    done = "taken from the disk" if found.whole else "decoded again" if found.latents is not None else "made"
    joint = "" if seam is None else f"; joint: {seam.describe()}"
    return [f"Segment {planned.place} ({planned.segment.num_frames} frames): {done}{joint}.", *fitted]


def segment_warnings(planned: PlannedSegment, found: SegmentFiles, seam: Seam | None) -> list[str]:
    """Return a line for each thing that is wrong with a segment, its joint included."""
    warnings = [f"{fault} It was made anew." for fault in found.faults]
    if seam is not None and not planned.segment.new_shot:
        warnings += seam.warnings()
    return [f"Segment {planned.place}: {warning}" for warning in warnings]


def describe_folder(folder: Path, size: str, others: int) -> str:
    """Say where the segments are, and what they are good for."""
    left = "" if not others else (f" {others} of its files are of other settings; they were left alone." if others > 1
                                  else " One of its files is of other settings; it was left alone.")
    return (f"The segments are kept in {folder}, {size}: change one, and only it and those after it are made anew. "
            f"Delete the folder when you are content.{left}")
