"""A clip as it is asked for: the one vocabulary of every node, local or remote, with its ranges and its errors.

Guidance is that of the hosted Wan 2.2 image-to-video APIs. Frame counts and sizes follow from the Wan VAE (Wan2.2,
wan/modules/vae2_1.py: 4 frames and 8x8 pixels a latent) and the transformer's 2x2 patches.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HIGH, LOW = EXPERTS = ("high", "low")
"""The two experts: of the high noise levels, from t = 1 down to the boundary, and of the low ones."""

FPS = 16
MAX_PROMPT_TOKENS = 512
MIN_IMAGE_SIDE = 32
SIZE_MULTIPLE = 16
MAX_SIDE = 4096
SMALLEST_PIXEL, LARGEST_PIXEL = -0.75, 2.0
"""Beyond these an IMAGE is of another scale: 0..255, or -1..1."""
MAX_FRAMES = 1025
MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 1, 100, 30
MIN_GUIDANCE, MAX_GUIDANCE, DEFAULT_GUIDANCE = 1.0, 10.0, 5.0
MIN_DENOISE = 0.01
MAX_NEGATIVE_PASS_EVERY = 10
MAX_SEED = 2**64 - 1
SCHEDULERS = ("euler", "unipc", "dpmpp_2m", "lcm")
OFFICIAL = "official"
SIGMA_SCHEDULES = (OFFICIAL, "thinned 4 + 14", "thinned 4 + 10", "lightx2v 4 steps", "TurboDiffusion 4 steps")
"""Named lists of sigmas; sampling/sigma_lists.py has what is in them."""
SMALLEST_GAP = 1e-5
"""Between two sigmas; a smaller one is lost in the float32 that schedulers count in."""
BOTH = "both"
HIGH_ONLY, LOW_ONLY = "high-noise only", "low-noise only"
STAGES = (BOTH, HIGH_ONLY, LOW_ONLY)
AUTO = "auto"
LORA_EXPERTS = (AUTO, BOTH, HIGH, LOW)
DEFAULT_SCALE, MAX_SCALE = 0.8, 4.0
DEFAULT_MIN_MATCH = 0.9
MAX_PROMPT_CHARACTERS = 10_000
"""Far beyond 512 tokens in any language; only the tokenizer can count those."""

RESOLUTIONS: dict[str, tuple[int, int]] = {
    "128x128 (bundled demo model)": (128, 128),
    "480p (832x480)": (832, 480),
    "480p portrait (480x832)": (480, 832),
    "720p (1280x720)": (1280, 720),
    "720p portrait (720x1280)": (720, 1280),
}
"""Named sizes in pixels, width first. 128x128 is the size that the bundled model was trained at."""


class RequestError(ValueError):
    """A clip cannot be made as asked. The message says what was given, what is allowed and what to do."""


def check_size(width: int, height: int) -> None:
    """Raise RequestError unless both sides are multiples of 16 in 32..4096 pixels."""
    for name, side in (("width", width), ("height", height)):
        if not MIN_IMAGE_SIDE <= side <= MAX_SIDE:
            raise RequestError(f"{name} is {side} pixels; choose {MIN_IMAGE_SIDE} to {MAX_SIDE}.")
        if side % SIZE_MULTIPLE:
            nearest = max(MIN_IMAGE_SIDE, round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise RequestError(f"{name} is {side} pixels; Wan 2.2 needs a multiple of {SIZE_MULTIPLE}. "
                               f"The nearest is {nearest}.")


def check_num_frames(num_frames: int) -> None:
    """Raise RequestError unless num_frames is 4n + 1 in 5..1025: the VAE packs 4 frames a latent after the first."""
    if not 5 <= num_frames <= MAX_FRAMES:
        raise RequestError(f"num_frames is {num_frames}; choose 5 to {MAX_FRAMES} (33, 49 and 81 are usual).")
    if num_frames % 4 != 1:
        lower = num_frames - (num_frames - 1) % 4
        raise RequestError(f"num_frames is {num_frames}; it must be a multiple of 4 plus 1, "
                           f"such as {lower} or {lower + 4}.")


def check_steps(num_inference_steps: int) -> None:
    """Raise RequestError unless num_inference_steps is 1..100."""
    if not MIN_STEPS <= num_inference_steps <= MAX_STEPS:
        raise RequestError(f"num_inference_steps is {num_inference_steps}; choose {MIN_STEPS} to {MAX_STEPS}.")


def check_guidance(guidance_scale: float, name: str = "guidance_scale") -> None:
    """Raise RequestError unless guidance_scale is 1..10 (1 skips the negative prompt)."""
    if not MIN_GUIDANCE <= guidance_scale <= MAX_GUIDANCE:  # also refuses NaN
        raise RequestError(f"{name} is {guidance_scale:g}; choose {MIN_GUIDANCE:g} to {MAX_GUIDANCE:g}.")


def check_seed(seed: int) -> None:
    """Raise RequestError unless seed fits 64 bits."""
    if not 0 <= seed <= MAX_SEED:
        raise RequestError(f"seed is {seed}; choose 0 to {MAX_SEED}.")


def check_sigmas(sigmas: tuple[float, ...]) -> None:
    """Raise RequestError unless sigmas, of every step's start, fall from at most 1 and stay above 0."""
    if len(sigmas) > MAX_STEPS:
        raise RequestError(f"sigmas lists {len(sigmas)} steps; choose {MIN_STEPS} to {MAX_STEPS}.")
    wrong = next((sigma for sigma in sigmas if not SMALLEST_GAP <= sigma <= 1.0), None)  # also finds NaN
    if wrong is not None:
        raise RequestError(f"sigmas lists {wrong:g}; a step starts at 1 (noise alone) or below, and above 0 (the "
                           "clip), which may stand at the end. Write decimals with a point, such as 0.9375.")
    for before, after in itertools.pairwise(sigmas):
        if before - after < SMALLEST_GAP:
            raise RequestError(f"sigmas lists {after:g} after {before:g}; each has to be below the one before it, by "
                               f"at least {SMALLEST_GAP:f}. Sort them from the highest to the lowest.")


def check_prompt_tokens(count: int, which: str) -> None:
    """Raise RequestError when a prompt is longer than the text encoder's 512 tokens, the end token included."""
    if count > MAX_PROMPT_TOKENS:
        raise RequestError(f"The {which} is {count} tokens long; Wan 2.2 reads at most {MAX_PROMPT_TOKENS}. "
                           f"Shorten it by {count - MAX_PROMPT_TOKENS} tokens.")


def check_image(image: torch.Tensor | None, name: str = "image") -> None:
    """Raise RequestError unless image is one opaque picture: IMAGE (1, H, W, 3), float 0..1, each side >= 32."""
    if image is None or not hasattr(image, "ndim"):
        raise RequestError(f"There is no {name}. Connect a picture, such as the output of Load Image.")
    if image.ndim != 4:
        raise RequestError(f"The {name} has {image.ndim} dimensions; a ComfyUI IMAGE has 4 (batch, height, width, "
                           "colours).")
    count, height, width, channels = image.shape
    if count != 1:
        raise RequestError(f"The {name} is a batch of {count} pictures; a clip takes one. "
                           "Pick one with the node Get Image from Batch.")
    if channels == 4:
        raise RequestError(f"The {name} has an alpha channel. Put it on a background first: Load Image gives the "
                           "picture without it, and Image Composite Masked joins it with another.")
    if channels != 3:
        raise RequestError(f"The {name} has {channels} colour channels; 3 are needed (red, green, blue).")
    if min(height, width) < MIN_IMAGE_SIDE:
        raise RequestError(f"The {name} is {width}x{height} pixels; each side must be at least {MIN_IMAGE_SIDE}.")
    check_pixels(image, f"The {name} holds")


def check_pixels(images: torch.Tensor, holds: str) -> None:
    """Raise RequestError unless pictures hold finite floats on the scale of an IMAGE, 0..1.

    holds: how the sentence begins, such as "The image holds".
    """
    check_pixel_type(images, holds)
    low, high = (float(value) for value in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RequestError(f"{holds} values that are not numbers (NaN or infinite). The node that made it went wrong.")
    check_pixel_scale(low, high, holds)


def check_pixel_type(images: torch.Tensor, holds: str) -> None:
    """Raise RequestError for pictures in whole numbers."""
    if not images.is_floating_point():
        raise RequestError(f"{holds} whole numbers ({str(images.dtype).removeprefix('torch.')}); a ComfyUI IMAGE holds "
                           "floats of 0 to 1. Divide them by 255.")


def check_pixel_scale(low: float, high: float, holds: str) -> None:
    """Raise RequestError for pictures of 0..255 or -1..1, by their smallest and largest value.

    A little beyond 0..1 is what resizing and VAEs leave.
    """
    if high > LARGEST_PIXEL:
        raise RequestError(f"{holds} values up to {high:g}; a ComfyUI IMAGE has 0 to 1. Divide them by 255.")
    if low < SMALLEST_PIXEL:
        raise RequestError(f"{holds} values down to {low:g}; a ComfyUI IMAGE has 0 to 1. If they are of -1 to 1, halve "
                           "them and add 0.5.")


@dataclass(frozen=True)
class Sampling:
    """Settings of the denoising of a clip.

    `guidance_scale_2`, for the low-noise expert, defaults to `guidance_scale`. `denoise`, above 0 and up to 1, is how
    much of a given latent is replaced, as ComfyUI's KSampler means it. `stage` is one of STAGES. `batched_guidance`
    takes the prompt and the negative prompt through an expert together. `sigma_schedule` is one of SIGMA_SCHEDULES.
    `sigmas`, of every step's start, is a list of one's own in place of it, of num_inference_steps and of shift.
    """

    seed: int
    num_inference_steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE
    guidance_scale_2: float | None = None
    scheduler: str = "euler"
    shift: float = 5.0
    boundary: float = 0.9
    denoise: float = 1.0
    stage: str = BOTH
    batched_guidance: bool = False
    sigma_schedule: str = OFFICIAL
    sigmas: tuple[float, ...] = ()

    @property
    def guidance(self) -> dict[str, float]:
        """Guidance of each expert, by HIGH and LOW."""
        low = self.guidance_scale if self.guidance_scale_2 is None else self.guidance_scale_2
        return {HIGH: self.guidance_scale, LOW: low}

    def check(self) -> None:
        """Raise RequestError for the first setting out of its range."""
        check_seed(self.seed)
        check_steps(self.num_inference_steps)
        check_guidance(self.guidance_scale)
        if self.guidance_scale_2 is not None:
            check_guidance(self.guidance_scale_2, "guidance_scale_2")
        if not 1.0 <= self.shift <= 20.0:
            raise RequestError(f"shift is {self.shift:g}; choose 1 to 20 (Wan 2.2 uses 5).")
        if not 0.0 <= self.boundary <= 1.0:
            raise RequestError(f"boundary is {self.boundary:g}; choose 0 to 1 (Wan 2.2 image-to-video uses 0.9).")
        if not MIN_DENOISE <= self.denoise <= 1.0:
            raise RequestError(f"denoise is {self.denoise:g}; choose {MIN_DENOISE:g} to 1 (1 makes a new clip).")
        for name, value, allowed in (("scheduler", self.scheduler, SCHEDULERS), ("stage", self.stage, STAGES),
                                     ("sigma_schedule", self.sigma_schedule, SIGMA_SCHEDULES)):
            if value not in allowed:
                raise RequestError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")
        check_sigmas(self.sigmas)
        if self.sigmas and self.sigma_schedule != OFFICIAL:
            raise RequestError(f"sigma_schedule is {self.sigma_schedule!r}, and sigmas is a list too. Empty sigmas, or "
                               f"set sigma_schedule to {OFFICIAL!r}.")


@dataclass(frozen=True)
class LoraSchedule:
    """In which of a clip's steps a LoRA acts, and how its scale rises and falls there.

    `start_percent` and `end_percent`, 0..1 as in ComfyUI's nodes, are shares of the clip's steps. `fade_in` and
    `fade_out`, 0..1, are shares of the steps between them.
    """

    start_percent: float = 0.0
    end_percent: float = 1.0
    fade_in: float = 0.0
    fade_out: float = 0.0

    def check(self) -> None:
        """Raise RequestError for the first value out of its range."""
        if not 0.0 <= self.start_percent < self.end_percent <= 1.0:
            raise RequestError(f"The LoRA acts from start_percent {self.start_percent:g} to end_percent "
                               f"{self.end_percent:g}; choose 0 to 1, the start below the end (0 is before the first "
                               "step, 1 after the last).")
        if not (self.fade_in >= 0.0 and self.fade_out >= 0.0 and self.fade_in + self.fade_out <= 1.0 + 1e-9):
            raise RequestError(f"The LoRA's fade_in is {self.fade_in:g} and its fade_out {self.fade_out:g}; choose 0 "
                               "to 1 for each, and at most 1 for both together.")


ALL_STEPS = LoraSchedule()


@dataclass(frozen=True)
class Lora:
    """A LoRA as it is asked for; nothing of it has been read yet.

    `source` is a link or the name of a file in ComfyUI's loras folder. `scale` is -4..4. `expert` is one of
    LORA_EXPERTS; `auto` is settled by what the file says of itself. `sha256`, in hexadecimal, is what the file's bytes
    must hash to. `min_match`, 0..1, is the share of its keys that must fit the expert. `schedule`: its scale by step.
    """

    source: str
    scale: float = DEFAULT_SCALE
    expert: str = AUTO
    sha256: str | None = None
    min_match: float = DEFAULT_MIN_MATCH
    schedule: LoraSchedule = ALL_STEPS

    def check(self) -> None:
        """Raise RequestError for the first value out of its range."""
        if not self.source.strip():
            raise RequestError("The LoRA has no source. Paste a link to a .safetensors file, or choose a file of the "
                               "loras folder.")
        if not (math.isfinite(self.scale) and -MAX_SCALE <= self.scale <= MAX_SCALE):
            raise RequestError(f"The LoRA's scale is {self.scale:g}; choose {-MAX_SCALE:g} to {MAX_SCALE:g} (0 to 1 is "
                               "usual).")
        if self.expert not in LORA_EXPERTS:
            raise RequestError(f"The LoRA's expert is {self.expert!r}; choose one of {', '.join(LORA_EXPERTS)}.")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            raise RequestError(f"The LoRA's sha256 has {len(self.sha256)} characters or others than 0-9 and a-f; it "
                               "is 64 hexadecimal digits, as `sha256sum` and Civitai show it.")
        if not 0.0 <= self.min_match <= 1.0:
            raise RequestError(f"The LoRA's min_match is {self.min_match:g}; choose 0 to 1.")
        self.schedule.check()


def check_prompt(text: str, which: str) -> None:
    """Raise RequestError for a prompt that is empty, or far longer than Wan 2.2 reads."""
    if not text.strip():
        raise RequestError(f"The {which} is empty. Describe what should happen in the clip.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise RequestError(f"The {which} is {len(text)} characters long; Wan 2.2 reads at most 512 tokens, some 2,000 "
                           "characters. Shorten it.")


@dataclass(frozen=True)
class ClipRequest:
    """Everything that makes one clip, beside its picture. Frames are at 16 a second.

    `resolution` names a size of the hosted APIs; the picture decides the orientation.
    """

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
        """The clip's duration in seconds."""
        return self.num_frames / FPS

    def check(self) -> None:
        """Raise RequestError for the first value out of its range."""
        check_prompt(self.prompt, "prompt")
        if self.negative_prompt.strip():
            check_prompt(self.negative_prompt, "negative_prompt")
        check_num_frames(self.num_frames)
        check_steps(self.num_inference_steps)
        check_guidance(self.guidance_scale)
        check_seed(self.seed)
        for lora in self.loras:
            lora.check()
