"""ComfyUI's VIDEO: read from a file, asked for its frames, size and file, and shown on its node."""

from __future__ import annotations

import asyncio
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import InputImpl

from ..request import FPS
from ..video.probe import VideoFacts, probe_video
from ..video.source import ClipSource, file_source, frames_source
from .files import shown_in_output


def frames_of(video: Any) -> torch.Tensor:
    """Return the IMAGE (F, H, W, 3), float 0..1, of a VIDEO."""
    return video.get_components().images


def video_from(path: Path) -> Any:
    """Return a VIDEO that reads the file when asked."""
    return InputImpl.VideoFromFile(str(path))


def video_facts(video: Any) -> dict[str, Any]:
    """Return a VIDEO's width, height, frames, fps, and its file as ComfyUI's /view names it.

    The file is None when it is not in the output folder, or the VIDEO is a part of it.
    """
    width, height = video.get_dimensions()
    source = video.get_stream_source() if hasattr(video, "get_active_trim_window") else None
    whole = (isinstance(source, str) and video.get_active_trim_window() == (0.0, 0.0)
             and video_from(Path(source)).get_dimensions() == (width, height))  # ComfyUI 0.35 crops as it reads
    shown = shown_in_output(Path(source)) if whole else None
    return {"width": width, "height": height, "frames": video.get_frame_count(),
            "fps": round(float(video.get_frame_rate()), 3),
            "file": None if shown is None else {**shown, "bytes": Path(source).stat().st_size}}


def clip_preview(path: Path, clip: VideoFacts) -> dict[str, Any] | None:
    """Return the node's `ui` output: what ComfyUI's own preview shows (its ui.PreviewVideo), with the player's facts.

    None for a clip outside ComfyUI's output folder, such as one that was bought while that was another: the canvas
    cannot get it, and the node's outputs go without. The facts lie beside the file's name, so that they stay with it in
    lists of clips, in the history and in the jobs; plain values, because clients make an address of them all, and
    no bool, which some URL libraries refuse.
    """
    shown = shown_in_output(path)
    if shown is None:
        return None
    facts = {"fps": str(clip.rate), "num_frames": clip.frames, "width": clip.width, "height": clip.height,
             "codec": clip.codec, "pix_fmt": clip.pix_fmt, "has_sound": int(clip.has_sound)}
    return {"images": [{**shown, **facts}], "animated": (True,)}


async def clip_outputs(path: Path, *, with_frames: bool) -> tuple[Any, torch.Tensor | None, dict[str, Any] | None]:
    """Return a finished file as VIDEO, its frames if they are wanted, and its preview; read in a thread."""
    video = video_from(path)
    images = await asyncio.to_thread(frames_of, video) if with_frames else None
    return video, images, await asyncio.to_thread(lambda: clip_preview(path, probe_video(path)))


def clip_source(clip: Any, name: str) -> ClipSource:
    """Return a VIDEO, or an IMAGE at Wan's rate, as a clip that is read frame by frame.

    Raises RequestError when it cannot be read. One whose file is known is read from there; of a VIDEO of another class
    the frames are held in memory.
    """
    if isinstance(clip, torch.Tensor):
        return frames_source(clip, Fraction(FPS), name)
    if isinstance(clip, InputImpl.VideoFromFile):
        source = clip.get_stream_source()
        content = source.getvalue() if isinstance(source, io.BytesIO) else Path(source)
        shown = name if isinstance(content, bytes) else f"{name} ({content.name})"
        found = file_source(content, shown, *clip.get_active_trim_window())
        if clip.get_dimensions() == InputImpl.VideoFromFile(source).get_dimensions():  # newer ones crop as they read
            return found
    parts = clip.get_components()
    return frames_source(parts.images, Fraction(parts.frame_rate), name, parts.audio)
