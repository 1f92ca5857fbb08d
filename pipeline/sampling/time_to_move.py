"""Time-to-Move: a clip that follows the warped pictures of a motion (arXiv 2511.08633, github.com/time-to-move/TTM).

The clip starts at the weak sigma, from the animatic with that much noise. After each step until the strong sigma, what
the motion knows is put back, with the noise of the next step: x = (1 - M) x + M ((1 - s) z + s n). The noise n is the
clip's own, the same in every step. Both bounds are sigmas, so that they mean the same for every number of steps.

Steps of the span are Euler's: a multistep solver would go on from predictions of latents that were replaced.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..models.condition import Condition
from ..models.latents import normalise
from ..motion.motion import FREE, HELD_SHARE, Motion, share_in_latents
from ..request import RequestError, Sampling
from .hooks import NO_HOOKS, Hooks
from .sampler import new_noise
from .schedule import sigmas_of

ROUNDING = 1e-6
"""Two sigmas that are this close are the same."""
OTHER_PICTURE = 0.1
"""Mean difference of normalised latents: of the same picture 0 to 0.02, of one that is moved by some pixels over 0.15.
"""


def _check_shape(motion: Motion, latent_shape: tuple[int, ...]) -> None:
    """Raise RequestError for a motion of another clip."""
    if motion.latent_shape != tuple(latent_shape):
        _, _, length, height, width = latent_shape
        raise RequestError(f"The motion is for {motion.num_frames} frames of {motion.width}x{motion.height}, "
                           f"first_frame for {4 * (length - 1) + 1} of {8 * width}x{8 * height}. Give both the same "
                           "resolution and num_frames.")


def _check_first_frame(latents: torch.Tensor, condition: Condition) -> None:
    """Raise RequestError when the normalised latents of an animatic start with another picture than the clip."""
    apart = float((latents[:, :, 0] - normalise(condition.latents)[:, :, 0]).abs().mean())
    if apart > OTHER_PICTURE:
        raise RequestError("first_frame shows another picture than the motion starts with. Connect start_image of "
                           "Camera Path to First Frame, whose image is what the camera sees at t 0.")


def _check_objects(motion: Motion) -> None:
    """Raise RequestError when the objects before a free background are held in no pixel of some latent.

    But for those in which most of them is outside the frame: an object may come in, and leave.
    """
    is_steered = any(moved.strength.strong < FREE for moved in motion.objects)
    if not is_steered or motion.strength.strong < FREE:
        return
    mask = motion.animatic.mask
    seen = mask.sum((1, 2))
    lost = share_in_latents(mask).amax((0, 1, 3, 4)) <= HELD_SHARE
    inside = torch.cat([seen[:1].repeat(4), seen[1:]]).view(-1, 4).amin(1) >= seen.max() / 2
    if bool((lost & inside).any()):
        latent = int((lost & inside).nonzero()[0])
        frame = 4 * latent
        raise RequestError(f"The object is too small or too fast to be held: at frame {frame + 1} of "
                           f"{motion.num_frames} it covers {int(seen[frame])} pixels of the {motion.width}x"
                           f"{motion.height} clip, and nowhere most of 8x8 pixels in 4 frames, which are one latent. "
                           "Choose a larger resolution, a slower path or more frames, or draw a larger mask inside "
                           "what the clip shows of the picture.")


def steered_steps(motion: Motion, sigmas: torch.Tensor) -> range:
    """Return the steps after which latents are replaced; an empty range at 0 for a motion that holds nothing.

    sigmas: of every step and of the end. Raises RequestError when no step lies between the motion's two sigmas.
    """
    strong = float(motion.animatic.until.min())
    if strong >= FREE:
        return range(0)
    first, end = (_first_at(sigmas, sigma) for sigma in (motion.weak, strong))
    if first == end:
        listed = ", ".join(f"{sigma:.3g}" for sigma in sigmas[:-1].tolist())
        raise RequestError(f"The motion steers from sigma {motion.weak:g} to {strong:g}, and no step starts "
                           f"there: they start at {listed}. Choose custom weak_sigma and strong_sigma that have some "
                           "of these between them, or take more steps: 4 for a distilled LoRA leave none where Wan 2.2 "
                           "settles its motion.")
    return range(first, end)


def _first_at(sigmas: torch.Tensor, bound: float) -> int:
    """Return the first step that starts at a sigma of `bound` or less; len(sigmas) - 1 for none."""
    return min(int((sigmas > bound + ROUNDING).sum()), len(sigmas) - 1)


def time_to_move(motion: Motion, sampling: Sampling, condition: Condition,
                 on_piece: Callable[[int, int], None] = lambda done, total: None) -> Hooks:
    """Return hooks that make the clip of a condition follow a motion.

    The VAE encodes the animatic when sampling begins; on_piece(done, total) counts latents then. Raises RequestError
    for a motion of another clip, of objects that no latent holds, or one that no step of the schedule would follow; and
    when sampling begins, for one that starts with another picture than the clip.
    """
    _check_shape(motion, condition.latent_shape)
    _check_objects(motion)
    sigmas = torch.from_numpy(sigmas_of(sampling)).float()
    steps = steered_steps(motion, sigmas)
    if not steps:
        return NO_HOOKS
    until = motion.animatic.until_in_latents()
    noise = new_noise(motion.latent_shape, sampling.seed)

    def noised(sigma: float) -> torch.Tensor:
        return (1.0 - sigma) * motion.latents(on_piece) + sigma * noise

    def start(given: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, int]:
        _check_first_frame(motion.latents(on_piece), condition)
        return noised(float(sigmas[steps.start])), steps.start

    def after_step(step: int, sigma_next: float, latents: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        if step not in steps:
            return latents
        held = sigmas[step] > until + ROUNDING
        return torch.where(held, noised(sigma_next), latents)

    def scheduler(step: int, chosen: str) -> str:
        return "euler" if step in steps else chosen

    return Hooks(start=start, after_step=after_step, scheduler=scheduler)
