"""The frames of a long clip: what each segment adds, where it fades, how long the whole is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..request import FPS, RequestError, check_size
from ..segments import MAX_CROSS_FADE, Extension, Segment, check_segments, long_warning, repeated_seeds


@dataclass(frozen=True)
class PlannedSegment:
    """One segment and its place in the clip. Frames are counted from 0, in the segment itself."""

    place: int
    """From 1."""
    segment: Segment
    overlap: int
    """Frames at its start that the segment before has too: frame overlap - 1 is that one's last; 0 for the first."""
    fade: int
    """The last so many of the overlap are cross-faded with the last frames of the segment before."""
    start: int
    """First frame of its piece of the clip."""
    stop: int
    """End of its piece: what follows fades into the next segment, or is the clip's end."""
    ends: int
    """Frames behind the piece that the clip has too, when it ends with this segment."""
    is_last: bool


@dataclass(frozen=True)
class Plan:
    """A long clip before anything of it is made."""

    segments: tuple[PlannedSegment, ...]
    extension: Extension
    width: int
    height: int

    @property
    def num_frames(self) -> int:
        """Frames of the whole clip."""
        return sum(one.stop - one.start for one in self.segments) + self.segments[-1].ends

    @property
    def tail(self) -> int:
        """Number of last frames of a segment that the next one needs."""
        return max(self.extension.overlap, MAX_CROSS_FADE)

    def describe(self) -> str:
        """Say how long the clip is, and how its segments go on."""
        count, way = len(self.segments), self.extension.way
        how = f", going on by {way}" if count > 1 else ""
        return (f"{count} segment{'s' if count > 1 else ''}{how}: {self.num_frames} frames, "
                f"{self.num_frames / FPS:.1f} s at {FPS} a second.")


def plan_long_clip(segments: Sequence[Segment], extension: Extension, width: int, height: int, *, cross_fade: int = 0,
                   loop: bool = False) -> Plan:
    """Return the plan of a clip.

    cross_fade: frames, 0..4; at most the overlap fades. loop: the last frame is the first one, and is left out, so that
    the clip repeats without showing it twice. Raises RequestError for anything out of its range, and for a segment that
    is shorter than what the next one goes on from.
    """
    check_segments(segments)
    extension.check()
    check_size(width, height)
    if not 0 <= cross_fade <= MAX_CROSS_FADE:
        raise RequestError(f"cross_fade is {cross_fade}; choose 0 to {MAX_CROSS_FADE} frames.")
    overlap = extension.overlap
    fade = min(cross_fade, overlap) if len(segments) > 1 else 0
    planned = []
    for place, segment in enumerate(segments, 1):
        first, last = place == 1, place == len(segments)
        least = 5 if len(segments) == 1 else overlap if first else overlap + 1
        if segment.num_frames < least:
            raise RequestError(f"Segment {place} is {segment.num_frames} frames long, and segments share {overlap} "
                               f"here. Give it at least {overlap + 4}.")
        closing = int(loop and last)
        planned.append(PlannedSegment(place, segment, 0 if first else overlap, 0 if first else fade,
                                      0 if first else overlap - fade, segment.num_frames - max(fade, closing),
                                      max(0, fade - closing), last))
    return Plan(tuple(planned), extension, width, height)


def plan_warnings(plan: Plan) -> list[str]:
    """Return a sentence for what is allowed and hardly meant."""
    found = [f"Segment {one.place}: {warning}" for one in plan.segments
             if (warning := long_warning(one.segment.num_frames))]
    if seeds := repeated_seeds([one.segment for one in plan.segments]):
        found.append(f"Several segments have the seed {', '.join(map(str, seeds))}: the same noise tends to repeat the "
                     "same motion. Give each its own.")
    return found
