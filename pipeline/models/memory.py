"""What a run needs of the device's memory, and what to do when it runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..files.names import size_text
from ..request import RequestError
from .host import Resident

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def activation_bytes(latent_shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> int:
    """Estimate of one pass's peak: about 11 hidden states, as measured at full size (3.75 GB for 32,760 tokens)."""
    tokens = latent_shape[2] * latent_shape[3] * latent_shape[4] // 4
    return 11 * tokens * dim * max(2, dtype.itemsize)


def preflight(weights: int, activations: int, free: int, total: int) -> str:
    """A line, short enough for a node, on what a pass needs (weights + activations) and what is free, after one that
    warns where it does not fit; all in bytes, the weights of the larger expert."""
    needs = f"needs {size_text(weights)} + {size_text(activations)}, {size_text(free)} free"
    if activations > total:
        return f"too little memory: lower the size or num_frames\n{needs}"
    if weights + activations > total:
        return f"the weights stream from RAM\n{needs}"
    return needs


def with_more_room(run: Callable[[int], T], resident: Resident, need: int, what: str, advice: str) -> T:
    """Run with that much room asked for; when the device's memory runs out, make room and run once more with twice.

    Raises RequestError with the figures and the advice when that does not fit either.
    """
    try:
        return run(need)
    except RuntimeError as error:
        if not resident.ran_out(error):
            raise
    # What the failed run held is released only now that its exception has gone.
    resident.make_room(2 * need)
    try:
        return run(2 * need)
    except RuntimeError as error:
        if not resident.ran_out(error):
            raise
        raise RequestError(f"There is too little memory on the device for {what}, which needs about "
                           f"{size_text(need)} beside the weights. {advice}") from error
