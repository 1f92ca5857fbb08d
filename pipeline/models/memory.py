"""Estimate the device memory of a run, describe it, and retry a run that is out of memory."""

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
    """Estimate the peak of one pass, in bytes: 11 hidden states, as measured at full size (3.75 GB, 32,760 tokens)."""
    tokens = latent_shape[2] * latent_shape[3] * latent_shape[4] // 4
    return 11 * tokens * dim * max(2, dtype.itemsize)


def preflight(weights: int, activations: int, free: int, total: int) -> str:
    """Describe the memory that a pass needs and that is free, in a line for a node, after a warning when it is short.

    All in bytes; `weights` are those of the larger expert.
    """
    needs = f"needs {size_text(weights)} + {size_text(activations)}, {size_text(free)} free"
    if activations > total:
        return f"too little memory: lower the size or num_frames\n{needs}"
    if weights + activations > total:
        return f"the weights stream from RAM\n{needs}"
    return needs


def with_oom_retry(run: Callable[[int], T], resident: Resident, need: int, what: str, advice: str) -> T:
    """Call run(need); when the device is out of memory, free memory and call run(2 * need).

    need: bytes to keep free for activations. what: the work, and advice: what to do, for the message. Raises
    RequestError when the second run is out of memory too.
    """
    try:
        return run(need)
    except RuntimeError as error:
        if not resident.is_oom(error):
            raise
    # The failed run's tensors are released only after its exception.
    resident.free_memory(2 * need)
    try:
        return run(2 * need)
    except RuntimeError as error:
        if not resident.is_oom(error):
            raise
        raise RequestError(f"There is too little memory on the device for {what}, which needs about "
                           f"{size_text(need)} beside the weights. {advice}") from error
