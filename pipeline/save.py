"""A clip's frames -> its MP4, with what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from .request import RequestError
from .video.mp4_writer import AI_GENERATED, write_mp4


def save_clip(path: Path, images: torch.Tensor, fps: float, crf: float, metadata: dict[str, str],
              mark_ai_generated: bool, on_frame: Callable[[int, int], None]) -> None:
    """Write IMAGE (F, H, W, 3), float 0..1, to path.

    Raises RequestError when the frames cannot be a video or the disk refuses them; nothing is left behind then.
    """
    if images.shape[0] == 0 or images.shape[-1] != 3:
        raise RequestError(f"The images have the shape {tuple(images.shape)}; a clip needs frames of 3 colours "
                           "(count, height, width, 3).")
    frames = (frame.clamp(0, 1).mul(255).round().byte().cpu().numpy() for frame in images)
    marks = AI_GENERATED if mark_ai_generated else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, frames, fps, crf, {**metadata, **marks}, lambda count: on_frame(count, len(images)))
    except OSError as error:
        raise RequestError(f"{path} could not be written: {error.strerror or error}. Free some space or choose "
                           "another folder in filename_prefix; the frames are still in the graph.") from error
