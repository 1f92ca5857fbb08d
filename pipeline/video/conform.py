"""Bring a clip to the size and the rate of another, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import torch

from ..models.condition import fit
from ..request import RequestError
from .join_settings import CONFORM
from .source import ClipSource

SAME_RATE = Fraction(1, 2000)
"""Rates that differ by a smaller share are one: 29.97 of two files is one, 23.976 and 24, 1/1001 apart, are two."""


def differences(clip: ClipSource, width: int, height: int, rate: Fraction) -> str:
    """Say in what a clip differs from a size and a rate; empty when in nothing."""
    found = []
    if (clip.width, clip.height) != (width, height):
        found.append(f"{clip.width}x{clip.height} instead of {width}x{height}")
    if not is_same_rate(clip.rate, rate):
        found.append(f"{float(clip.rate):g} frames a second instead of {float(rate):g}")
    return " and ".join(found)


def is_same_rate(one: Fraction, other: Fraction) -> bool:
    """Tell whether frames of one rate may stand for those of another, one for one."""
    return abs(one / other - 1) < SAME_RATE


def conformed(clip: ClipSource, width: int, height: int, rate: Fraction) -> Iterator[torch.Tensor]:
    """Yield a clip's frames (height, width, 3) at another rate.

    A frame of another shape is scaled to fill that size, and what stands out is cut off evenly. At another rate each
    frame is the one that the clip shows in the middle of its time: frames are repeated or left out, none is made up.
    """
    frames = clip.frames() if is_same_rate(clip.rate, rate) else at_rate(clip.frames(), clip.rate, rate)
    for frame in frames:
        same = frame.shape[:2] == (height, width)
        yield frame if same else fit(frame[None], width, height)[0]


def check_same(clips: list[ClipSource], width: int, height: int, rate: Fraction) -> None:
    """Raise RequestError for the first clip of another size or rate."""
    for clip in clips:
        if difference := differences(clip, width, height, rate):
            raise RequestError(f"{clip.name} has {difference}. Choose clips that are alike, or set mismatch to "
                               f"{CONFORM}.")


def at_rate(frames: Iterator[torch.Tensor], own: Fraction, rate: Fraction) -> Iterator[torch.Tensor]:
    """Yield at `rate` frames that have a rate of their own: each is the one that is shown in the middle of its time."""
    count = 0
    for index, frame in enumerate(frames):
        while (count + Fraction(1, 2)) / rate < (index + 1) / own:
            yield frame
            count += 1
