"""Decode a JPEG, PNG or WebP picture to an IMAGE, as ComfyUI's Load Image does, and encode one for an upload."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image

from ..request import MIN_IMAGE_SIDE, RequestError

MAX_PIXELS = 64_000_000
MAX_UPLOAD_SIDE, MAX_UPLOAD_BYTES = 2000, 10_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
           8: Image.Transpose.ROTATE_90}
"""EXIF's Orientation -> the transposition that turns the picture upright."""
MPO, MOST_IN_MPO = "MPO", 4
"""Pillow's name of a JPEG with more pictures behind it, as phones write it for depth and brightness; most of these."""
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
"""Pillow's modes of a PNG with 16 bits of grey."""


def decode_picture(data: bytes) -> torch.Tensor:
    """Decode a picture to IMAGE (1, H, W, 3), float32 0..1, turned upright by its EXIF.

    Of an animation, the first frame; transparency is dropped. Raises RequestError as `_open` does.
    """
    with _open(data) as picture:
        if picture.mode in SIXTEEN_BIT:
            grey = np.asarray(picture, np.float32)[..., None] / 65535
            return torch.from_numpy(grey).clamp(0, 1).expand(-1, -1, 3)[None].contiguous()
        pixels = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def check_picture(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels of a picture that can be a clip's first frame, turned upright.

    Raises RequestError as `_open` does, for a picture that is too small, and for an animation: Load Image decodes all
    its frames, and a thousand of them fit into a few kilobytes.
    """
    with _open(data) as picture:
        frames, kind = getattr(picture, "n_frames", 1), picture.format
        if frames > 1 and kind != MPO:
            raise RequestError(f"The picture is an animation of {frames} frames. Send one of them, as a JPEG, PNG or "
                               "WebP file.")
        if frames > MOST_IN_MPO:
            raise RequestError(f"The file holds {frames} pictures. Send one of them.")
        picture.load()
        size = picture.size
    if min(size) < MIN_IMAGE_SIDE:
        raise RequestError(f"The picture is {size[0]}x{size[1]} pixels; each side must be at least {MIN_IMAGE_SIDE}.")
    return size


@contextmanager
def _open(data: bytes) -> Iterator[Image.Image]:
    """Open a picture, upright, for the block. Raises RequestError, for errors of the block too, for a file that is
    damaged, of another format, or of more than 64 megapixels, which is checked before a pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is lower
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise RequestError(_too_many(f"{picture.width}x{picture.height} pixels"))
            # Pillow's exif_transpose also rewrites the EXIF, and fails on some that it has read without complaint.
            turn = UPRIGHT.get(picture.getexif().get(ExifTags.Base.Orientation))
            yield picture if turn is None else picture.transpose(turn)
    except Image.DecompressionBombError:
        raise RequestError(_too_many("far too large")) from None
    except RequestError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow raises for damaged files
        raise RequestError(f"The picture is not a JPEG, PNG or WebP file, or it is damaged ({type(error).__name__}). "
                           "Open it in an image editor and save it again.") from None


def encode_picture(image: torch.Tensor) -> tuple[bytes, str]:
    """Encode IMAGE (1, H, W, 3), float 0..1, for an upload; return the file, without metadata, and its media type.

    PNG when it has at most 10 MB, else JPEG; sides are scaled down to 2000 pixels. Every provider takes these.
    """
    pixels = image[0].clamp(0, 1).mul(255).round().byte().cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MAX_UPLOAD_SIDE, MAX_UPLOAD_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    if file.tell() <= MAX_UPLOAD_BYTES:
        return file.getvalue(), "image/png"
    for quality in (95, 85, 70):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, subsampling=0)
        if file.tell() <= MAX_UPLOAD_BYTES:
            break
    return file.getvalue(), "image/jpeg"


def _too_many(size: str) -> str:
    return f"The picture is {size}; the most is {MAX_PIXELS // 10**6} megapixels. Scale it down first."
