"""One clip that goes on from another: the condition for the sampler, whatever the other one comes as."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..lora.svi import has_svi_pair
from ..models.condition import Condition, encode_clip, fit
from ..models.extension import end_latent, frames_condition, svi_condition
from ..models.vae import FRAMES_A_LATENT, PIXELS_A_LATENT, check_vae
from ..request import (
    AUTO,
    SIZE_MULTIPLE,
    Lora,
    RequestError,
    check_image,
    check_num_frames,
    check_pixels,
    check_size,
)
from ..segments import FRAMES, KNOWN_FRAMES, LAST_FRAME, SVI, SVI_OVERLAP, Extension, long_warning
from ..video.save import count_frames, stream_frames
from ..video.source import ClipSource

ENCODED_FRAMES = 17
"""Most last frames of a clip without latents that are encoded for its last latent: what the VAE remembers of time."""


@dataclass(frozen=True)
class EarlierClip:
    """A clip to go on from. Sizes in pixels."""

    called: str
    """For messages."""
    width: int
    height: int
    last_frames: Callable[[int], torch.Tensor]
    """(n) -> its last n frames, or all when it has fewer, (n, H, W, 3), float32 0..1."""
    first_frame: Callable[[], torch.Tensor]
    """-> (1, H, W, 3)."""
    latents: torch.Tensor | None = None
    """Raw, (1, 16, T, h, w), when it is known by them."""


def clip_of_latent(vae: Any, latent: dict[str, Any]) -> EarlierClip:
    """Return the clip of a LATENT. Raises RequestError for that of another model, for a batch, and for NaN."""
    count_frames(latent)
    samples = latent["samples"].float().cpu()
    if len(samples) != 1:
        raise RequestError(f"The latent is a batch of {len(samples)} clips; one can be gone on from. Pick one with "
                           "Latent From Batch.")
    if not samples.isfinite().all():
        raise RequestError("The latent holds values that are not numbers (NaN or infinite). The sampler overflowed: "
                           "try another dtype or attention.")

    def last_frames(count: int) -> torch.Tensor:
        # The decoder remembers what came before: only the whole clip gives its last frames as they are.
        return _last(stream_frames(vae, {"samples": samples}), count)

    return EarlierClip("The latent", samples.shape[4] * PIXELS_A_LATENT, samples.shape[3] * PIXELS_A_LATENT,
                       last_frames, lambda: next(iter(stream_frames(vae, {"samples": samples[:, :, :1]}))), samples)


def clip_of_images(images: torch.Tensor, called: str = "The clip") -> EarlierClip:
    """Return the clip of an IMAGE (F, H, W, 3). Raises RequestError for what is none."""
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] != 3:
        raise RequestError(f"{called} has the shape {tuple(images.shape)}; frames have (count, height, width, 3).")
    check_pixels(images, f"{called} holds")
    return EarlierClip(called, images.shape[2], images.shape[1], lambda count: images[-count:].float().cpu(),
                       lambda: images[:1].float().cpu())


def clip_of_source(source: ClipSource) -> EarlierClip:
    """Return the clip of a video: a file is read frame by frame, frames in memory are an IMAGE."""
    if source.held is not None:
        return clip_of_images(source.held, "The video")
    return EarlierClip("The video", source.width, source.height,
                       lambda count: _last((frame[None] for frame in source.frames()), count),
                       lambda: next(source.frames())[None])


def _last(pieces: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """Return the last frames (n, H, W, 3) of pieces (f, H, W, 3)."""
    return torch.stack(tuple(deque((frame for piece in pieces for frame in piece), maxlen=count)))


@dataclass(frozen=True)
class Extended:
    """How a clip goes on."""

    condition: Condition
    overlap: int
    """Frames at its start that the earlier clip has too."""
    known: torch.Tensor
    """The earlier clip's last frames, which these show again, (n, H, W, 3)."""
    notes: list[str]
    """Sentences for the user."""


def extend_clip(vae: Any, earlier: EarlierClip, way: str, known_frames: int, num_frames: int,
                anchor: torch.Tensor | None = None, last_image: torch.Tensor | None = None,
                loras: Sequence[Lora] = (),
                on_piece: Callable[[int, int], None] = lambda done, total: None) -> Extended:
    """Return the condition of a clip of `num_frames` that goes on from an earlier one.

    way: one of segments.WAYS. anchor, last_image: IMAGE (1, H, W, 3); without an anchor, SVI takes the earlier clip's
    first frame. loras: those that the sampler gets; AUTO is SVI when the pair is among them. Raises RequestError before
    any work.
    """
    check_vae(vae)
    check_num_frames(num_frames)
    for picture, name in ((anchor, "anchor_image"), (last_image, "last_image")):
        if picture is not None:
            check_image(picture, name)
    _check_size_of(earlier)
    has_pair = has_svi_pair((lora, lora.source) for lora in loras)
    chosen = way if way != AUTO else SVI if has_pair else FRAMES
    extension = Extension(chosen, known_frames)
    extension.check()
    if num_frames <= extension.overlap:
        raise RequestError(f"num_frames is {num_frames}, of which {extension.overlap} are known already; choose at "
                           f"least {extension.overlap + FRAMES_A_LATENT}.")
    warnings = [warning] if (warning := long_warning(num_frames)) else []
    if chosen == SVI and not has_pair:
        warnings.append("The way is SVI, and no LoRA pair with SVI in its names is in loras: a model without it has "
                        "not learned to go on that way. Add the pair, or choose the way 'frames'.")
    if chosen == SVI:
        return _by_svi(vae, earlier, num_frames, anchor, last_image, warnings)
    known = earlier.last_frames(extension.overlap)
    if len(known) < extension.overlap:
        if way != AUTO:
            raise RequestError(f"{earlier.called} has {len(known)} frames, and known_frames is {known_frames}. Choose "
                               "fewer, the way 'last frame', or a longer clip.")
        extension, known = Extension(LAST_FRAME), known[-1:]
    condition = frames_condition(vae, known, num_frames, last_image, on_piece)
    told = _describe(extension.way, extension.overlap, num_frames)
    return Extended(condition, extension.overlap, known, [told, *warnings])


def _describe(way: str, overlap: int, num_frames: int) -> str:
    return f"Goes on by {way}: the first {overlap} of {num_frames} frames repeat the end of the clip."


def _by_svi(vae: Any, earlier: EarlierClip, num_frames: int, anchor: torch.Tensor | None,
            last_image: torch.Tensor | None, warnings: list[str]) -> Extended:
    """Return how a clip goes on by SVI: from its own last latent, or from one that its last frames are encoded to."""
    width, height = earlier.width, earlier.height
    if earlier.latents is not None:
        first, last = earlier.latents[:, :, :1], earlier.latents[:, :, -1:]
        count = FRAMES_A_LATENT * (earlier.latents.shape[2] - 1) + 1
        known = earlier.last_frames(FRAMES_A_LATENT)
    else:
        frames = earlier.last_frames(ENCODED_FRAMES)
        count = len(frames)
        whole = (count - 1) // FRAMES_A_LATENT * FRAMES_A_LATENT + 1
        last = encode_clip(vae, frames[-whole:])[:, :, -1:]
        known = frames[-FRAMES_A_LATENT:]
        first = encode_clip(vae, earlier.first_frame()) if anchor is None else None
        warnings = [*warnings, "The clip comes as frames, so that its last latent is encoded anew; the LATENT itself "
                               "would be exact."]
    if anchor is not None:
        first = encode_clip(vae, fit(anchor.float().cpu(), width, height))
    elif count == 1:
        last = None  # a picture is the anchor, as of SVI's first clips; as the last latent too it would stand still
    overlap = min(SVI_OVERLAP, count)
    end = None if last_image is None else end_latent(vae, last_image, width, height, num_frames)
    return Extended(svi_condition(first, last, num_frames, end), overlap, known,
                    [_describe(SVI, overlap, num_frames), *warnings])


def _check_size_of(earlier: EarlierClip) -> None:
    """Raise RequestError for a clip of a size that Wan 2.2 cannot make."""
    width, height = earlier.width, earlier.height
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        near = [max(2, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in (width, height)]
        raise RequestError(f"{earlier.called} is {width}x{height} pixels, and Wan 2.2 needs multiples of "
                           f"{SIZE_MULTIPLE}. Scale its frames to {near[0]}x{near[1]} first, with Upscale Image.")
    check_size(width, height)


def check_known_frames(text: str) -> int:
    """Return a choice of known_frames as a number. Raises RequestError for one that is not on the list."""
    if text not in map(str, KNOWN_FRAMES):
        raise RequestError(f"known_frames is {text}; choose one of {', '.join(map(str, KNOWN_FRAMES))}.")
    return int(text)
