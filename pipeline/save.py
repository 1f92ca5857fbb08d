"""A clip's frames, or its latents, -> its MP4, with what the file says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .decode import count_frames, stream_frames
from .new_file import advice_on
from .request import RequestError
from .video.encoding import REFUSE, Encoding
from .video.mp4_writer import Written, write_mp4


@dataclass(frozen=True)
class Mp4:
    """All of a file but its frames."""

    new_path: Callable[[], Path]
    """A path that no file has; asked again when another writer takes it first."""
    encoding: Encoding = field(default_factory=Encoding)
    metadata: dict[str, str] = field(default_factory=dict)
    audio: dict[str, Any] | None = None
    """An AUDIO, cut or filled with silence to the clip's length."""


def save_clip(mp4: Mp4, images: torch.Tensor, on_frame: Callable[[int, int], None],
              stop: Callable[[], None] = lambda: None) -> Written:
    """Write IMAGE (F, H, W, 3 or 4), float 0..1.

    on_frame(done, total) is called for each; stop() often, to raise what ends the run. Raises RequestError when the
    frames cannot be a video or the disk refuses them; nothing is left behind then.
    """
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (3, 4):
        raise RequestError(f"The images have the shape {tuple(images.shape)}; a clip needs frames of 3 colours "
                           "(count, height, width, 3).")
    if images.shape[-1] == 4 and mp4.encoding.alpha == REFUSE:
        raise RequestError(f"The images have the shape {tuple(images.shape)}, with an alpha channel, which MP4 cannot "
                           "hold. Set alpha to 'on black' or 'on white', or take the channel out.")
    return _write(mp4, [images], len(images), "the frames are", on_frame, stop)


def decode_to_mp4(mp4: Mp4, vae: Any, latent: dict[str, Any], on_frame: Callable[[int, int], None],
                  stop: Callable[[], None] = lambda: None) -> Written:
    """Write the frames of a LATENT as they are decoded, a few at a time: the file of `decode_frames` and `save_clip`.

    Raises as these do.
    """
    total = count_frames(latent)
    return _write(mp4, stream_frames(vae, latent), total, "the latent is", on_frame, stop)


def _write(mp4: Mp4, pieces: Iterable[torch.Tensor], total: int, kept: str, on_frame: Callable[[int, int], None],
           stop: Callable[[], None]) -> Written:
    path = mp4.new_path()
    try:
        return write_mp4(mp4.new_path, pieces, mp4.encoding, mp4.metadata, mp4.audio,
                         lambda count: on_frame(count, total), stop)
    except OSError as error:
        raise RequestError(f"{path} could not be written: {error.strerror or error}. {advice_on(error)} or choose "
                           f"another folder in filename_prefix; {kept} still in the graph.") from error
