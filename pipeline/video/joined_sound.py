"""The sound of clips one after another, read while their frames are encoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .sound import LAYOUTS
from .source import ClipSource

COMMON_RATE, COMMON_CHANNELS = 48000, 2
"""Of clips whose sounds are not alike."""
RAMP_SECONDS = 0.005
"""Sound fades in and out that fast where clips are cut: a jump would click."""


@dataclass
class _Part:
    """The sound of one clip, from its sample `begin` in the film on."""

    begin: int
    pieces: Iterator[np.ndarray]
    waiting: np.ndarray
    """Samples (C, n) that were read and not yet asked for."""


class JoinedSound:
    """Sound as `SoundPieces`: each clip's own, for as long as its frames are shown.

    The thread that makes frames calls `add` before it hands out the first frame of a clip and the last ones of the clip
    before; the encoder's calls `piece` for the time of frames that it has got.
    """

    def __init__(self, rate: int, channels: int) -> None:
        self.rate, self.channels = rate, channels
        self._lock = threading.Lock()
        self._parts: list[_Part] = []

    def add(self, clip: ClipSource, time: Fraction, skipped: Fraction) -> None:
        """Let a clip be heard from `time` in the film on, without its first `skipped` seconds; until the next one."""
        begin = round(time * self.rate)
        part = _Part(begin, _without(clip.samples(self.rate, LAYOUTS[self.channels]), round(skipped * self.rate)),
                     np.zeros((self.channels, 0), np.float32))
        with self._lock:
            self._parts.append(part)

    def piece(self, start: int, end: int) -> np.ndarray:
        """Return samples `start` to before `end`, (C, T); each call must begin where the last one ended."""
        with self._lock:
            parts = list(self._parts)
        found = []
        for part, later in zip(parts, [*parts[1:], None], strict=True):
            first, last = max(start, part.begin), end if later is None else min(end, later.begin)
            if first < last:
                samples = self._read(part, last - first)
                found.append(samples * self._ramps(part, None if later is None else later.begin, first, last))
        return np.concatenate(found, 1) if found else np.zeros((self.channels, end - start), np.float32)

    def _read(self, part: _Part, count: int) -> np.ndarray:
        """Return the next samples of a clip, silence behind its end."""
        while part.waiting.shape[1] < count:
            more = next(part.pieces, None)
            if more is None:
                more = np.zeros((self.channels, count - part.waiting.shape[1]), np.float32)
            part.waiting = np.concatenate([part.waiting, more], 1)
        samples, part.waiting = np.split(part.waiting, [count], 1)
        return samples

    def _ramps(self, part: _Part, end: int | None, first: int, last: int) -> np.ndarray:
        """Return the loudness of samples `first` to before `last`: 1, but near the joints."""
        at, length = np.arange(first, last), self.rate * RAMP_SECONDS
        rising = 1.0 if part.begin == 0 else np.clip((at - part.begin + 0.5) / length, 0, 1)
        falling = 1.0 if end is None else np.clip((end - at - 0.5) / length, 0, 1)
        return np.float32(rising * falling)


def joined_sound(clips: Sequence[ClipSource]) -> JoinedSound | None:
    """Return an object for the sound of clips, without a clip in it; None when none of them has sound."""
    known = {clip.sound for clip in clips if clip.sound is not None}
    if not known:
        return None
    only = known.pop()
    alike = not known and only.channels in LAYOUTS
    return JoinedSound(only.rate, only.channels) if alike else JoinedSound(COMMON_RATE, COMMON_CHANNELS)


def _without(pieces: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield pieces (C, T) without the first `count` samples."""
    for piece in pieces:
        if count < piece.shape[1]:
            yield piece[:, count:]
        count = max(0, count - piece.shape[1])
