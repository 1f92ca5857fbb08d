"""Decode a clip's latents to frames, and write frames or latents as an MP4; with WanVAE or a VAE of ComfyUI's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import advice_on
from ..models.latents import CHANNELS
from ..models.vae import FRAMES_A_LATENT, PIXELS_A_LATENT, WanVAE, check_vae
from ..request import RequestError, check_pixel_type
from ..sampling.resume import check_finished
from .encoding import REFUSE, Encoding
from .mp4_writer import Written, write_mp4
from .sound import SoundPieces


def count_frames(latent: dict[str, Any]) -> int:
    """Return the number of frames of all B clips in a LATENT of raw latents (B, 16, T, h, w).

    Raises RequestError for latents of another model.
    """
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, torch.Tensor):
        raise RequestError("There is no latent. Connect the Wan 2.2 Sampler, or Load Latent (Wan 2.2).")
    check_finished(latent)
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise RequestError(f"The latent has the shape {tuple(samples.shape)}; a Wan 2.2 A14B clip has (1, {CHANNELS}, "
                           "time, height, width). Connect the Wan 2.2 Sampler.")
    return samples.shape[0] * (FRAMES_A_LATENT * (samples.shape[2] - 1) + 1)


def decode_frames(vae: Any, latent: dict[str, Any], on_piece: Callable[[int, int], None]) -> torch.Tensor:
    """Decode a LATENT of raw latents (B, 16, T, h, w) to IMAGE (B * F, H, W, 3), float32 0..1, F = 4 (T - 1) + 1.

    Raises RequestError for latents of another model.
    """
    count_frames(latent)
    check_vae(vae)
    samples = latent["samples"]
    clips = vae.decode(samples, on_piece) if isinstance(vae, WanVAE) else vae.decode(samples)
    return clips.reshape(-1, *clips.shape[-3:])


def stream_frames(vae: Any, latent: dict[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the frames of `decode_frames` in pieces (f, H, W, 3): a few frames by WanVAE, a clip by another VAE.

    Raises RequestError for latents of another model.
    """
    count_frames(latent)
    for clip in latent["samples"].split(1):
        if isinstance(vae, WanVAE):
            yield from vae.stream(clip)
        else:
            decoded = vae.decode(clip)
            yield decoded.reshape(-1, *decoded.shape[-3:])


def size_of_images(images: Any) -> tuple[int, int]:
    """Return width and height of an IMAGE in pixels; zeros for what `save_clip` refuses."""
    shape = getattr(images, "shape", ())
    return (shape[2], shape[1]) if len(shape) == 4 else (0, 0)


def size_of_latent(latent: Any) -> tuple[int, int]:
    """Return width and height of a LATENT's frames in pixels; zeros for what `decode_to_mp4` refuses."""
    shape = getattr(latent.get("samples") if isinstance(latent, dict) else None, "shape", ())
    return (shape[4] * PIXELS_A_LATENT, shape[3] * PIXELS_A_LATENT) if len(shape) == 5 else (0, 0)


@dataclass(frozen=True)
class Mp4:
    """An MP4 to be written, without its frames."""

    new_path: Callable[[], Path]
    """Returns a path that no file has; called again when another writer takes that first."""
    encoding: Encoding = field(default_factory=Encoding)
    metadata: dict[str, str] = field(default_factory=dict)
    audio: dict[str, Any] | SoundPieces | None = None
    """An AUDIO, or sound that comes in pieces; cut or filled with silence to the clip's length."""


def save_clip(mp4: Mp4, images: torch.Tensor, on_frame: Callable[[int, int], None],
              stop: Callable[[], None] = lambda: None) -> Written:
    """Write IMAGE (F, H, W, 3 or 4), float 0..1, as an MP4.

    on_frame(done, total) is called for each frame; stop() is called often, and raises to end the run. Raises
    RequestError when the frames cannot be a video or the file cannot be written; then no file is left.
    """
    if not isinstance(images, torch.Tensor):
        raise RequestError("There are no images. Connect Decode, or another node that gives frames.")
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (3, 4):
        raise RequestError(f"The images have the shape {tuple(images.shape)}; a clip needs frames of 3 colours "
                           "(count, height, width, 3).")
    if images.shape[-1] == 4 and mp4.encoding.alpha == REFUSE:
        raise RequestError(f"The images have the shape {tuple(images.shape)}, with an alpha channel, which MP4 cannot "
                           "hold. Set alpha to 'on black' or 'on white', or take the channel out.")
    check_pixel_type(images, "The images hold")
    return write_pieces(mp4, [images], len(images), "the frames are", on_frame, stop)


def decode_to_mp4(mp4: Mp4, vae: Any, latent: dict[str, Any], on_frame: Callable[[int, int], None],
                  stop: Callable[[], None] = lambda: None) -> Written:
    """Write the frames of a LATENT while they are decoded, a few at a time.

    The file is that of `decode_frames` and `save_clip`, byte for byte. Raises as these do.
    """
    total = count_frames(latent)
    check_vae(vae)
    return write_pieces(mp4, stream_frames(vae, latent), total, "the latent is", on_frame, stop)


def write_pieces(mp4: Mp4, pieces: Iterable[torch.Tensor], total: int, kept: str, on_frame: Callable[[int, int], None],
                 stop: Callable[[], None]) -> Written:
    """Write pieces (f, H, W, 3 or 4) as an MP4, with a sentence when that fails.

    kept: what is not lost then ("the frames are"). Raises RequestError, and as the pieces do.
    """
    path = mp4.new_path()
    try:
        return write_mp4(mp4.new_path, pieces, mp4.encoding, mp4.metadata, mp4.audio,
                         lambda count: on_frame(count, total), stop)
    except OSError as error:
        raise RequestError(f"{path} could not be written: {error.strerror or error}. {advice_on(error)} or choose "
                           f"another folder in filename_prefix; {kept} still in the graph.") from error
