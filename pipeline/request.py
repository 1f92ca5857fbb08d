"""What a clip is: the one vocabulary of every node, local or remote, with its ranges and its errors.

Guidance and the most steps are those of the hosted Wan 2.2 image-to-video APIs; the fewest steps are those of the
four-step distilled LoRAs. Frame counts and sizes follow from the Wan VAE (Wan2.2, wan/modules/vae2_1.py: 4 frames and
8x8 pixels a latent) and the transformer's 2x2 patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

FPS = 16
MAX_PROMPT_TOKENS = 512
MIN_IMAGE_SIDE = 32
SIZE_MULTIPLE = 16
MAX_SIDE = 4096
MAX_FRAMES = 1025
MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 4, 50, 30
MIN_GUIDANCE, MAX_GUIDANCE, DEFAULT_GUIDANCE = 1.0, 10.0, 5.0
MIN_DENOISE = 0.01
MAX_SEED = 2**64 - 1
SCHEDULERS = ("euler", "unipc", "dpmpp_2m")
BOTH, HIGH_ONLY, LOW_ONLY = STAGES = ("both", "high-noise only", "low-noise only")

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
    """Raise RequestError unless num_inference_steps is 4..50."""
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


def check_prompt_tokens(count: int, which: str) -> None:
    """Raise RequestError when a prompt is longer than the text encoder's 512 tokens, the end token included."""
    if count > MAX_PROMPT_TOKENS:
        raise RequestError(f"The {which} is {count} tokens long; Wan 2.2 reads at most {MAX_PROMPT_TOKENS}. "
                           f"Shorten it by {count - MAX_PROMPT_TOKENS} tokens.")


def check_image(image: torch.Tensor | None, name: str = "image") -> None:
    """Raise RequestError unless image is one opaque picture: IMAGE (1, H, W, 3), float 0..1, each side >= 32."""
    if image is None:
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
    if not bool(image.isfinite().all()):
        raise RequestError(f"The {name} holds values that are not numbers (NaN or infinite). "
                           "The node that made it went wrong.")


@dataclass(frozen=True)
class Sampling:
    """How a clip is denoised.

    `guidance_scale_2`, for the low-noise expert, defaults to `guidance_scale`. `denoise`, above 0 and up to 1, is how
    much of a given latent is replaced, as ComfyUI's KSampler means it. `stage` is one of STAGES. `batched_guidance`
    takes the prompt and the negative prompt through an expert together.
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

    @property
    def guidance(self) -> tuple[float, float]:
        """Guidance of the high-noise and of the low-noise expert."""
        low = self.guidance_scale if self.guidance_scale_2 is None else self.guidance_scale_2
        return self.guidance_scale, low

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
        for name, value, allowed in (("scheduler", self.scheduler, SCHEDULERS), ("stage", self.stage, STAGES)):
            if value not in allowed:
                raise RequestError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")
