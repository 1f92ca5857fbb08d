"""A whole clip as it is asked of whoever makes it: what a remote job is bought with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from ..lora.lora import DEFAULT_MIN_MATCH, Lora
from ..request import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    FPS,
    MAX_STEPS,
    RequestError,
    check_guidance,
    check_num_frames,
    check_steps,
)

REMOTE_RESOLUTIONS = ("480p", "720p")
MIN_REMOTE_STEPS = 10
MAX_REMOTE_SEED = 2**31 - 1
"""Signed 32 bits, the narrowest of the hosted APIs."""
MAX_PROMPT_CHARACTERS = 10_000
"""Far beyond 512 tokens in any language; the providers count the tokens themselves."""


def check_prompt(text: str, which: str) -> None:
    """Raise RequestError for a prompt that is empty, or far longer than Wan 2.2 reads."""
    if not text.strip():
        raise RequestError(f"The {which} is empty. Say what is to happen in the clip.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise RequestError(f"The {which} is {len(text)} characters long; Wan 2.2 reads at most 512 tokens, some 2,000 "
                           "characters. Shorten it.")


@dataclass(frozen=True)
class ClipRequest:
    """What makes one clip, beside its picture. Frames are at 16 a second; the picture decides the orientation."""

    prompt: str
    negative_prompt: str = ""
    loras: tuple[Lora, ...] = ()
    resolution: str = "480p"
    num_frames: int = 81
    num_inference_steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE
    seed: int = 0

    @property
    def seconds(self) -> float:
        """How long the clip plays."""
        return self.num_frames / FPS

    def check(self) -> None:
        """Raise RequestError for the first value out of its range, DownloadError for a LoRA's link that is none."""
        check_prompt(self.prompt, "prompt")
        if self.negative_prompt.strip():
            check_prompt(self.negative_prompt, "negative_prompt")
        if self.resolution not in REMOTE_RESOLUTIONS:
            raise RequestError(f"resolution is {self.resolution!r}; choose one of {', '.join(REMOTE_RESOLUTIONS)}.")
        check_num_frames(self.num_frames)
        check_steps(self.num_inference_steps)
        if self.num_inference_steps < MIN_REMOTE_STEPS:
            raise RequestError(f"num_inference_steps is {self.num_inference_steps}; hosted models take "
                               f"{MIN_REMOTE_STEPS} to {MAX_STEPS}.")
        check_guidance(self.guidance_scale)
        if not 0 <= self.seed <= MAX_REMOTE_SEED:
            raise RequestError(f"seed is {self.seed}; hosted models take 0 to {MAX_REMOTE_SEED}.")
        for lora in self.loras:
            lora.check()

    def digest(self, picture: bytes) -> str:
        """SHA-256 of what a provider is sent and of the picture's file, in hexadecimal: the same for the same clip.

        What of a LoRA never leaves this machine stands at its default, as in the digests that ledgers hold.
        """
        sent = tuple(replace(lora, sha256=None, min_match=DEFAULT_MIN_MATCH) for lora in self.loras if lora.scale)
        text = json.dumps(asdict(replace(self, loras=sent)), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode() + b"\0" + hashlib.sha256(picture).digest()).hexdigest()
