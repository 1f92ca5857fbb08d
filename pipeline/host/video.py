"""ComfyUI's VIDEO: read from a file, and asked for its frames, size and file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .files import shown_in_output


def frames_of(video: Any) -> torch.Tensor:
    """IMAGE (F, H, W, 3), float 0..1, of a VIDEO of ComfyUI's."""
    return video.get_components().images


def video_from(path: Path) -> Any:
    """A VIDEO of ComfyUI's that reads the file when asked."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def video_facts(video: Any) -> dict[str, Any]:
    """Size and length of a VIDEO, and its file as ComfyUI's /view names it; None for one that is not in the output
    folder, or is a part of its file."""
    width, height = video.get_dimensions()
    source = video.get_stream_source() if hasattr(video, "get_active_trim_window") else None
    whole = isinstance(source, str) and video.get_active_trim_window() == (0.0, 0.0)
    shown = shown_in_output(Path(source)) if whole else None
    return {"width": width, "height": height, "frames": video.get_frame_count(),
            "fps": round(float(video.get_frame_rate()), 3),
            "file": None if shown is None else {**shown, "bytes": Path(source).stat().st_size}}
