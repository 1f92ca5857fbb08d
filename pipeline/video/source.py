"""A clip to read: its size, rate and length, its frames one after another, and its sound."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..request import FPS, RequestError, check_pixel_scale, check_pixel_type, check_pixels
from .encoding import REFUSE, on_background
from .sound import LAYOUTS, read_sound

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream, VideoFrame
    from av.container import InputContainer

# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_ACCURATE_RND (libswscale/swscale.h): without the last
# three, colours are up to a code and a half darker.
_EXACT = 4 | 0x2000 | 0x4000 | 0x40000


@dataclass(frozen=True)
class SoundFacts:
    """Samples a second, and channels."""

    rate: int
    channels: int


@dataclass(frozen=True)
class ClipSource:
    """A clip that can be read, more than once, without being held in memory."""

    name: str
    """For messages: "clip_2 (cat.mp4)"."""
    width: int
    height: int
    rate: Fraction
    """Frames a second, on average."""
    expected: int
    """Frames, as far as the file says: for progress."""
    frames: Callable[[], Iterator[torch.Tensor]]
    """Yields frames (H, W, 3), float32 0..1. Raises RequestError where the file is damaged."""
    sound: SoundFacts | None
    samples: Callable[[int, str], Iterator[np.ndarray]]
    """samples(rate, layout): yields pieces (C, T), float32 -1..1, from the time of the first frame on."""
    held: torch.Tensor | None = None
    """The frames as they were given, (F, H, W, 3 or 4), of a clip that is in memory. Unlike those of a file they may be
    of any scale, and have an alpha channel, which `frames` leaves out: see `opaque`."""


def file_source(file: Path | bytes, name: str, start: float = 0.0, duration: float = 0.0) -> ClipSource:
    """Return the clip in a file, or in the bytes of one, from `start` on for `duration` seconds (0: to its end).

    Decodes the first frame. Raises RequestError when there is none.
    """
    import av

    def frames() -> Iterator[torch.Tensor]:
        with _errors_of(name), _open(file) as container:
            yield from _frames(container, name, start, duration)

    with _errors_of(name), _open(file) as container:
        if not container.streams.video:
            raise RequestError(f"{name} holds no video. Choose a video file.")
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or stream.guessed_rate or FPS)
        seconds = duration or float((container.duration or 0) / av.time_base) - start
        expected = stream.frames if not (start or duration) and stream.frames else max(1, round(seconds * rate))
        first = next(_frames(container, name, start, duration), None)
        if first is None:
            raise RequestError(f"{name} has no frame that can be decoded. Fetch it again.")
        sound = _sound_facts(container)
    height, width = first.shape[:2]
    return ClipSource(name, width, height, rate, expected, frames, sound,
                      lambda rate, layout: _samples(file, name, start, rate, layout))


def frames_source(images: torch.Tensor, rate: Fraction, name: str, audio: dict[str, Any] | None = None) -> ClipSource:
    """Return the clip of an IMAGE (F, H, W, 3 or 4), float 0..1, that is in memory, with an AUDIO or without.

    Raises RequestError for what is no IMAGE, and for sound that no MP4 can hold.
    """
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (3, 4):
        raise RequestError(f"{name} has images of the shape {tuple(images.shape)}; a clip needs frames of 3 colours "
                           "(count, height, width, 3).")
    found, _ = read_sound(audio)

    def samples(rate: int, layout: str) -> Iterator[np.ndarray]:
        if found is not None:
            yield from _resampled([_audio_frame(found.samples, found.rate)], rate, layout)

    return ClipSource(name, images.shape[2], images.shape[1], rate, len(images),
                      lambda: (frame[..., :3].float().cpu() for frame in images),
                      None if found is None else SoundFacts(found.rate, found.channels), samples, images)


def opaque(clip: ClipSource, alpha: str) -> ClipSource:
    """Return a clip whose frames an MP4 can hold: those in memory are checked, and put on a background.

    alpha: one of encoding.ALPHAS. Raises RequestError, with the clip's name, for an alpha channel that is refused, for
    whole numbers, for another scale than 0..1, and for NaN. What is decoded from a file is as it should be.
    """
    images = clip.held
    if images is None:
        return clip
    check_pixels(images, f"{clip.name} holds")
    if images.shape[-1] != 4:
        return clip
    if alpha == REFUSE:
        raise RequestError(f"{clip.name} has an alpha channel, which MP4 cannot hold. Set alpha to 'on black' or 'on "
                           "white', or take the channel out.")
    return replace(clip, frames=lambda: (on_background(frame.float().cpu().clamp(0, 1), alpha) for frame in images))


def check_scale(clip: ClipSource) -> None:
    """Raise RequestError, with the clip's name, for frames in memory that are whole numbers, or of another scale than
    0..1. Values that are not numbers are none."""
    if clip.held is None:
        return
    check_pixel_type(clip.held, f"{clip.name} holds")
    for frame in clip.held:
        numbers = frame[frame.isfinite()]
        if len(numbers):
            check_pixel_scale(float(numbers.min()), float(numbers.max()), f"{clip.name} holds")


def counted(clip: ClipSource, update: Callable[[int, int], None]) -> Iterator[torch.Tensor]:
    """Yield a clip's frames; update(done, total) is called after each."""
    for done, frame in enumerate(clip.frames(), start=1):
        yield frame
        update(min(done, clip.expected), clip.expected)


def frames_at(clip: ClipSource, indices: list[int]) -> torch.Tensor:
    """Return the frames at these indices, in order, as IMAGE; the clip is read up to the last of them."""
    wanted = set(indices)
    return torch.stack([frame for index, frame in enumerate(itertools.islice(clip.frames(), max(wanted) + 1))
                        if index in wanted])


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Turn FFmpeg's errors while a file is read into a sentence about that file."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise RequestError(f"{name} is not a video, or it is damaged ({error.strerror or error}). Fetch it "
                           "again.") from error


def _open(file: Path | bytes) -> InputContainer:
    import av

    return av.open(io.BytesIO(file) if isinstance(file, bytes) else str(file))


def _frames(container: InputContainer, name: str, start: float, duration: float) -> Iterator[torch.Tensor]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    base = stream.time_base
    first = (stream.start_time or 0) + round(Fraction(start) / base) if start else None
    end = None if not duration else (stream.start_time or 0) + round(Fraction(start + duration) / base)
    promised, count = stream.frames, 0
    if first is not None:
        container.seek(first, stream=stream)
    for packet in container.demux(stream):
        promised -= packet.is_discard
        for frame in packet.decode():
            if frame.is_corrupt:
                raise RequestError(f"{name} is damaged at frame {count + 1}. Fetch it again.")
            if first is not None and frame.pts is not None and frame.pts < first:
                continue
            if end is not None and frame.pts is not None and frame.pts >= end:
                return
            count += 1
            yield _as_image(frame)
    if first is None and end is None and count < promised:
        raise RequestError(f"{name} is damaged: {count} of its {promised} frames can be decoded. Fetch it again.")


def _as_image(frame: VideoFrame) -> torch.Tensor:
    """Return a frame as (H, W, 3), float32 0..1, turned as its file says."""
    deep = max(component.bits for component in frame.format.components) > 8
    rgb = frame.reformat(format="gbrpf32le" if deep else "rgb24", interpolation=_EXACT).to_ndarray()
    if frame.rotation:
        rgb = np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))
    pixels = torch.from_numpy(rgb).float()
    return pixels if deep else pixels / 255


def _sound_facts(container: InputContainer) -> SoundFacts | None:
    track = _track(container)
    return None if track is None else SoundFacts(track.rate, track.channels)


def _track(container: InputContainer) -> AudioStream | None:
    """Return the last track that can be decoded, which is the one that ComfyUI takes."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None and stream.rate]
    return known[-1] if known else None


def _samples(file: Path | bytes, name: str, start: float, rate: int, layout: str) -> Iterator[np.ndarray]:
    with _errors_of(name), _open(file) as container:
        track, video = _track(container), container.streams.video[0]
        if track is None:
            return
        begin = start + float((video.start_time or 0) * video.time_base)
        skip = None
        for piece, time in _timed(container.decode(track), rate, layout):
            if skip is None:
                skip = round((begin - time) * rate)
                if skip < 0:
                    yield np.zeros((len(piece), -skip), np.float32)
                    skip = 0
            if skip < piece.shape[1]:
                yield piece[:, skip:]
            skip = max(0, skip - piece.shape[1])


def _timed(frames: Iterator[AudioFrame], rate: int, layout: str) -> Iterator[tuple[np.ndarray, float]]:
    """Yield resampled pieces, each with the time in seconds of the first frame of all."""
    first = next(frames, None)
    if first is None:
        return
    time = float(first.time or 0)
    yield from ((piece, time) for piece in _resampled(itertools.chain([first], frames), rate, layout))


def _resampled(frames: Iterable[AudioFrame], rate: int, layout: str) -> Iterator[np.ndarray]:
    """Yield the samples of frames, of which there is one at least, at that rate and in that layout, (C, T)."""
    import av

    waiting = iter(frames)
    first = next(waiting)
    doubled = first.layout.nb_channels == 1 and layout == "stereo"  # which FFmpeg makes 3 dB quieter
    resampler = av.AudioResampler(format="fltp", layout="mono" if doubled else layout, rate=rate)
    for frame in itertools.chain([first], waiting, [None]):
        for piece in resampler.resample(frame):
            samples = piece.to_ndarray()
            yield samples.repeat(2, 0) if doubled else samples


def _audio_frame(samples: np.ndarray, rate: int) -> AudioFrame:
    import av

    # Channels in turns, in one plane: PyAV 18 fills no frame of eight planes.
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.reshape(1, -1)), format="flt",
                                       layout=LAYOUTS[len(samples)])
    frame.sample_rate = rate
    return frame
