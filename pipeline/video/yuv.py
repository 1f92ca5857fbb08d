"""Convert RGB frames to the Y'CbCr that players expect: BT.709, limited range, rounded once.

Recommendation ITU-R BT.709-6, items 3.2 to 3.4 (Y' = Kr R' + Kg G' + Kb B', differences in 224 of 256 codes), straight
from the floats; libswscale's path from 16-bit RGB is half a code too bright. Chroma of 4:2:0 is level with the left
luma column, the default of MPEG-2 and H.264 (ITU-T H.264, figure 6-4): it is filtered (1 2 1) / 4 along a row and
(1 1) / 2 down a column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..request import RequestError, check_pixel_scale
from .encoding import PAD, Encoding, on_background

if TYPE_CHECKING:
    import torch
    from av import VideoFrame

_RED, _BLUE = 0.2126, 0.0722
_LUMA = np.array([_RED, 1 - _RED - _BLUE, _BLUE])
_CB = (np.array([0, 0, 1]) - _LUMA) / (2 * (1 - _BLUE))
_CR = (np.array([1, 0, 0]) - _LUMA) / (2 * (1 - _RED))

FAR_OUT = 16.0
"""No sharpening leaves such values: they are of another scale."""


def to_rgb(image: torch.Tensor, number: int, encoding: Encoding) -> np.ndarray:
    """Convert a frame (H, W, 3 or 4) of any dtype and device to (H', W', 3), float32 0..1, contiguous.

    Values a little outside 0..1 are cut off. For 4:2:0 an odd side is one pixel longer (the edge repeated) or shorter.
    number: of the frame, from 1, for messages. Raises RequestError for NaN, infinity, and another scale than 0..1.
    """
    frame = image.float().cpu().contiguous().numpy()
    low, high = float(frame.min()), float(frame.max())  # NaN when the frame has one
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RequestError(f"Frame {number} holds values that are not numbers (NaN or infinity), so nothing was "
                           "written. The sampler or the VAE overflowed: try another dtype, attention or VAE.")
    # A later frame that overshoots, as sharpening leaves it, costs no clip; one of 0..255 behind a black one does.
    if number == 1 or max(-low, high) > FAR_OUT:
        check_pixel_scale(low, high, f"Frame {number} holds")
    if low < 0 or high > 1:
        frame = frame.clip(0, 1)
    if frame.shape[-1] == 4:
        frame = on_background(frame, encoding.alpha)
    height, width = frame.shape[0] % 2, frame.shape[1] % 2
    if encoding.halves_chroma and (height or width):
        if encoding.odd_size == PAD:
            return np.pad(frame, ((0, height), (0, width), (0, 0)), mode="edge")
        return np.ascontiguousarray(frame[: frame.shape[0] - height, : frame.shape[1] - width])
    return frame


def to_yuv(rgb: np.ndarray, encoding: Encoding) -> VideoFrame:
    """Convert (H, W, 3), float32 0..1, contiguous, to a frame in the encoding's pixel format; even sides for 4:2:0."""
    import av

    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, encoding.pix_fmt)
    planes = [_samples(plane, np.uint8 if encoding.bits == 8 else np.uint16) for plane in frame.planes]
    unit = 1 << (encoding.bits - 8)
    weights = [scale * unit * part for scale, part in ((219, _LUMA), (224, _CB), (224, _CR))]
    values = [_weighted(rgb, weights[0])]
    if encoding.halves_chroma:
        rows = rgb[0::2] + rgb[1::2]
        values += [_halved(rows, part) for part in weights[1:]]
    else:
        values += [_weighted(rgb, part) for part in weights[1:]]
    for plane, value, zero in zip(planes, values, (16, 128, 128), strict=True):
        # Adding a half and truncating to integers rounds.
        np.add(value, np.float32(zero * unit + 0.5), out=plane, casting="unsafe")
    return frame


def _samples(plane: object, dtype: type) -> np.ndarray:
    """Return a plane's memory as (height, width), without the padding of its rows."""
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return rows[:, : plane.width]


def _weighted(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (H, W * 3 / len(weights)): the weighted sums of each len(weights) numbers of a row, of (H, W, 3).

    Each row is a product of its own: for larger ones BLAS starts threads, which wait for those of the encoder.
    """
    return rows.reshape(len(rows), -1, len(weights)) @ weights.astype(np.float32)


def _halved(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return chroma (H / 2, W / 2), level with the left of each two columns, from sums of two rows (H / 2, W, 3)."""
    own = _weighted(rows, np.concatenate([weights / 4, weights / 8]))
    right = _weighted(rows, np.concatenate([weights * 0, weights / 8]))  # belongs to the sample on the right
    own[:, 1:] += right[:, :-1]
    own[:, 0] += rows[:, 0] @ (weights / 8).astype(np.float32)  # the edge continues left of the picture
    return own
