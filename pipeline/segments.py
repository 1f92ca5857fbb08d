"""A clip in several segments: what each one is asked to be, and what their chain must keep to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .request import AUTO, Lora, RequestError, check_num_frames, check_prompt, check_seed

MAX_SEGMENTS = 100
TRAINED_FRAMES = 81
"""Frames that Wan 2.2 was trained to make at once; beyond them a clip runs back to its first picture."""
SVI, FRAMES, LAST_FRAME = "SVI", "frames", "last frame"
WAYS = (AUTO, SVI, FRAMES, LAST_FRAME)
KNOWN_FRAMES = (5, 9, 13)
MAX_CROSS_FADE = 4
"""Frames; as many as a latent holds."""
SVI_OVERLAP = 5
"""The frame of the anchor picture, and the four that the last latent of the clip before shows again."""

_SVI = re.compile(r"(?<![a-z])svi(?![a-z])")


@dataclass(frozen=True)
class Segment:
    """One segment of a longer clip; the content of a WAN22_SEGMENTS socket is a tuple of them, in order.

    `num_frames` is what is sampled, 4n + 1, the frames it shares with the segment before it included. `loras` act in
    this segment alone, after those of the model. `new_shot`: its colours need not be those of the segment before.
    """

    prompt: str
    seed: int = 0
    num_frames: int = 81
    loras: tuple[Lora, ...] = ()
    new_shot: bool = False

    def check(self) -> None:
        """Raise RequestError for the first value out of its range."""
        check_prompt(self.prompt, "prompt")
        check_seed(self.seed)
        check_num_frames(self.num_frames)
        for lora in self.loras:
            lora.check()


@dataclass(frozen=True)
class Extension:
    """How a segment goes on from the clip before it.

    `way`, one of WAYS without AUTO. SVI: from its last latent and an anchor picture, for the LoRA pair of that name.
    FRAMES: from its last `known_frames` frames, one of KNOWN_FRAMES. LAST_FRAME: from the last one alone.
    """

    way: str = FRAMES
    known_frames: int = KNOWN_FRAMES[0]

    def check(self) -> None:
        """Raise RequestError for the first value that is not on its list."""
        if self.way not in WAYS[1:]:
            raise RequestError(f"way is {self.way!r}; choose one of {', '.join(WAYS)}.")
        if self.way == FRAMES and self.known_frames not in KNOWN_FRAMES:
            raise RequestError(f"known_frames is {self.known_frames}; choose one of "
                               f"{', '.join(map(str, KNOWN_FRAMES))}.")

    @property
    def overlap(self) -> int:
        """Number of frames at the segment's start that the clip before has already; the last of them is its last."""
        return {SVI: SVI_OVERLAP, FRAMES: self.known_frames, LAST_FRAME: 1}[self.way]


def is_svi_lora(name: str) -> bool:
    """Tell whether a LoRA is one of Stable Video Infinity by its name, such as SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH."""
    return _SVI.search(name.lower()) is not None


def long_warning(num_frames: int) -> str:
    """Return a sentence on a clip that is longer than the model was trained for; an empty string for any other."""
    if num_frames <= TRAINED_FRAMES:
        return ""
    return (f"{num_frames} frames in one go: beyond {TRAINED_FRAMES} Wan 2.2 tends to run back to the first picture. "
            "Make the clip in segments with Long Clip, or go on from one with Extend Clip.")


def check_segments(segments: Sequence[Segment]) -> None:
    """Raise RequestError for an empty or too long chain, and for the first segment out of its ranges, by its place."""
    if not segments:
        raise RequestError("There are no segments. Connect at least one Segment (Wan 2.2).")
    if len(segments) > MAX_SEGMENTS:
        raise RequestError(f"There are {len(segments)} segments; {MAX_SEGMENTS} are allowed. Make several long clips, "
                           "and join them with Join Clips.")
    for place, segment in enumerate(segments, 1):
        try:
            segment.check()
        except RequestError as error:
            raise RequestError(f"Segment {place}: {error}") from error


def repeated_seeds(segments: Sequence[Segment]) -> list[int]:
    """Return the seeds that more than one segment has, in order: the same noise tends to repeat the same motion."""
    seeds = [segment.seed for segment in segments]
    return sorted({seed for seed in seeds if seeds.count(seed) > 1})
