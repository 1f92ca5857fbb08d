"""Clips one after another: frames that repeat are dropped, colours are matched, the joints are cross-faded.

Frames are made one by one: only those around a joint are in memory.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import torch

from ..quality.overlap import find_overlap, same_shot, small
from ..quality.seam_meter import SeamMeter
from ..quality.seams import Seam
from ..request import RequestError
from .colour_match import colour_statistics, match_colours
from .conform import conformed, is_same_rate
from .cross_fade import cross_fade
from .join_settings import FIND, JOINT, MOST_OVERLAP, OFF, JoinSettings
from .joined_sound import JoinedSound
from .source import ClipSource


@dataclass(frozen=True)
class Joint:
    """A joint, as it was made."""

    clip: int
    """Number of the clip behind it, from 1."""
    frame: int
    """Index in the film of the first frame that is of that clip, alone or blended."""
    overlap: int
    """Frames of that clip that were dropped or blended."""
    faded: int
    new_shot: bool


def join(clips: Sequence[ClipSource], size: tuple[int, int], rate: Fraction, settings: JoinSettings,
         sound: JoinedSound | None, on_joint: Callable[[Joint], None],
         on_seam: Callable[[Joint, Seam], None]) -> Iterator[torch.Tensor]:
    """Yield the frames (1, H, W, 3) of clips joined, at that size (width, height) and rate.

    on_joint(joint) is called before the first frame behind a joint; on_seam(joint, seam) some frames later, but for new
    shots. Raises RequestError when a clip has no more frames than repeat the one before, or fewer than the next one is
    to repeat, and as reading them does.
    """
    meter, count = SeamMeter(), 0
    coming: Joint | None = None
    if sound is not None:
        sound.add(clips[0], Fraction(0), Fraction(0))
    for item in _in_order(clips, size, rate, settings):
        if isinstance(item, Joint):
            coming = item
            on_joint(item)
            if sound is not None:  # before the last frames of the earlier clip, whose sound ends with them
                sound.add(clips[item.clip - 1], (item.frame + item.faded) / rate, item.overlap / rate)
            continue
        if coming is not None and coming.frame == count:
            if coming.new_shot:
                meter.new_shot()
            else:
                meter.joint(partial(on_seam, coming), coming.faded)
        meter.add(item)
        count += 1
        yield item[None]
    meter.finish()


def _in_order(clips: Sequence[ClipSource], size: tuple[int, int], rate: Fraction,
              settings: JoinSettings) -> Iterator[torch.Tensor | Joint]:
    """Yield the frames (H, W, 3) of the film, and each joint before the last frames in front of it."""
    held: deque[torch.Tensor] = deque()
    tail: deque[torch.Tensor] = deque(maxlen=MOST_OVERLAP)
    count = own = 0
    for number, clip in enumerate(clips, start=1):
        frames = conformed(clip, *size, rate)
        if number > 1:
            joint, frames = _begin(clip, frames, number, (count, own), held, list(tail), settings)
            count, own = joint.frame, joint.overlap - joint.faded
            for _ in range(joint.faded):
                tail.pop()
            yield joint
            yield from held
            held.clear()
        for frame in frames:
            count, own = count + 1, own + 1
            tail.append(small(frame))
            held.append(frame)
            if len(held) > settings.faded + 1:
                yield held.popleft()
    yield from held


def check_overlaps(clips: Sequence[ClipSource], settings: JoinSettings, rate: Fraction) -> None:
    """Raise RequestError, as `join` would on the way, where it is known beforehand that clips share too many frames."""
    for number, (before, clip) in enumerate(itertools.pairwise(clips), start=2):
        certain = settings.new_shots is not None and number not in settings.new_shots
        if certain and before.held is not None and is_same_rate(before.rate, rate):
            _check_overlap(clip, settings.overlap, len(before.held))


def _check_overlap(clip: ClipSource, overlap: int, before: int) -> None:
    """Raise RequestError for a given overlap of more frames than the clip before has: the others would be lost."""
    if overlap > before:
        raise RequestError(f"overlap is {overlap}, and the clip before {clip.name} has {before} frames: no more can "
                           f"repeat. Set a smaller overlap, or {FIND} to have it found.")


def _begin(clip: ClipSource, frames: Iterator[torch.Tensor], number: int, counts: tuple[int, int],
           held: deque[torch.Tensor], tail: list[torch.Tensor], settings: JoinSettings,
           ) -> tuple[Joint, Iterator[torch.Tensor]]:
    """Return the joint before a clip, and the clip's frames from there on; blended ones are taken out of `held`.

    counts: frames of the film so far, with those in `held`, its last ones, and of the clip before.
    """
    count, before = counts
    most = MOST_OVERLAP if settings.overlap == FIND else settings.overlap
    head = list(itertools.islice(frames, most + 1))
    if not head:
        raise RequestError(f"{clip.name} has no frames.")
    shown = [small(frame) for frame in head[:most]]
    overlap = find_overlap(tail, shown) if settings.overlap == FIND else settings.overlap
    if settings.new_shots is None:
        was_found = overlap > 0 and settings.overlap == FIND
        new_shot = not was_found and not same_shot(tail[-1], small(head[max(0, min(overlap, len(head)) - 1)]))
    else:
        new_shot = number in settings.new_shots
    overlap = 0 if new_shot else overlap
    if settings.overlap != FIND:
        _check_overlap(clip, overlap, before)
    if len(head) <= overlap:
        raise RequestError(f"{clip.name} has {len(head)} frames, and its first {overlap} repeat the clip before, which "
                           "leaves none. Take it out, or set a smaller overlap.")
    way = OFF if new_shot else settings.colours
    reference = colour_statistics(held[-1])
    measured = colour_statistics(head[max(0, overlap - 1)]) if way == JOINT else None

    def matched(frame: torch.Tensor) -> torch.Tensor:
        return match_colours(frame[None], reference, settings.strength, way, measured)[0]

    faded = min(settings.faded, overlap, len(held) - 1)
    last = [held.pop() for _ in range(faded)][::-1]
    blended = cross_fade(torch.stack(last), torch.stack([matched(frame) for frame in head[overlap - faded : overlap]])
                         ) if faded else ()
    joint = Joint(number, count - faded, overlap, faded, new_shot)
    return joint, itertools.chain(blended, map(matched, itertools.chain(head[overlap:], frames)))

