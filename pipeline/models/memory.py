"""Estimate the device memory of a run, describe it, and retry a run that is out of memory."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from ..files.names import size_text
from ..request import RequestError
from .host import Resident

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


RESERVED = 500_000_000
"""Bytes of the device that no pass can use: the CUDA context, and 0.4 to 0.7 GB that ComfyUI leaves to other programs
(comfy/model_management.py, EXTRA_RESERVED_VRAM)."""
STREAMED_SHARE = 0.05
"""The part of an expert that is on the device when its weights stream: two of its 40 blocks."""


class Fit(Enum):
    """Room on a device for an expert and one pass through it."""

    FITS = "fits"
    STREAMS = "streams"
    """Some weights stay in RAM and come to the device in each pass, those of a block at a time."""
    TOO_LITTLE = "too little"


def activation_bytes(latent_shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> int:
    """Estimate the peak of one pass of one clip beside the weights, in bytes.

    latent_shape: (B, 16, T, h, w); B is not counted. In 2 bytes a number the peak is 11.2 hidden states, where a layer
    norm is in float32; in 4 bytes 9.5, in the feed-forward layers (bench/README.md, "Memory at full size"). A layer
    that is dequantised for its use, 0.25 to 0.6 GB, is below that peak from 480p and 33 frames on.
    """
    tokens = latent_shape[2] * latent_shape[3] * latent_shape[4] // 4
    size = max(2, dtype.itemsize)
    return int((11.2 if size == 2 else 9.5) * tokens * dim * size)


def fit(weights: int, activations: int, total: int) -> Fit:
    """Tell how an expert's weights and a pass go with a device, from their bytes and those of the whole device."""
    room = total - RESERVED - activations
    if weights <= room:
        return Fit.FITS
    return Fit.STREAMS if weights * STREAMED_SHARE <= room else Fit.TOO_LITTLE


def preflight(weights: int, activations: int, free: int, total: int) -> str:
    """Describe the memory that a pass needs and that is free, in a line for a node, after a warning when it is short.

    All in bytes; `weights` are those of the larger expert.
    """
    needs = f"needs {size_text(weights)} + {size_text(activations)}, {size_text(free)} free"
    warning = {Fit.FITS: "", Fit.STREAMS: "the weights stream from RAM\n",
               Fit.TOO_LITTLE: "too little memory: lower the size or num_frames\n"}
    return warning[fit(weights, activations, total)] + needs


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
