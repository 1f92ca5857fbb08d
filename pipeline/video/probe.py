"""Read the facts of a video file by decoding all of it, so that a damaged or incomplete file does not pass."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..request import RequestError


@dataclass(frozen=True)
class VideoFacts:
    """Codec, pixel format, size, frame rate and length of a video file."""

    codec: str
    pix_fmt: str
    width: int
    height: int
    rate: Fraction
    """Frames a second, on average."""
    frames: int
    has_sound: bool


def probe_video(path: Path) -> VideoFacts:
    """Decode every frame of a video file and return its facts. Raises RequestError when a part cannot be decoded.

    Frames that an edit list hides (ISO/IEC 14496-12), such as those that a cut without encoding leaves before its
    first frame, are not counted: no player shows them.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise RequestError(f"{path.name} holds no video. Choose a video file.")
            context = stream.codec_context
            stream.thread_type = "AUTO"
            sound = list(container.streams.audio[:1])
            promised, frames, broken, packets = stream.frames, 0, 0, 0
            for packet in container.demux(stream, *sound):
                if packet.stream is not stream:
                    packets += packet.size > 0 and not packet.is_corrupt
                    continue
                promised -= packet.is_discard
                for frame in packet.decode():
                    frames += 1
                    broken += frame.is_corrupt
            silent = sum(track.frames for track in sound) - packets
            facts = VideoFacts(context.codec.canonical_name, context.pix_fmt, context.width, context.height,
                               Fraction(stream.average_rate or 0), frames, bool(sound))
    except av.error.FFmpegError as error:
        raise RequestError(f"{path.name} is not a video, or it is damaged ({error.strerror or error}). Fetch it "
                           "again.") from error
    if frames == 0 or broken or frames < promised:
        raise RequestError(f"{path.name} is damaged: {frames - broken} of its {max(promised, frames)} frames can be "
                           "decoded. Fetch it again.")
    if silent > 0:
        raise RequestError(f"{path.name} is damaged: a part of its sound is missing. Fetch it again.")
    return facts
