"""Cut exact frames out of a video file, without encoding where the stream allows it.

That is where the first wanted frame is a key frame and the wanted frames are neighbours in the file too, which B frames
need not be.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.atomic import new_file
from ..request import RequestError
from .copied_stream import add_copied_video
from .encoding import DEFAULT_CRF, X264

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer

_OPTIONS = {"movflags": "use_metadata_tags+faststart"}


def trim(source: Path, new_path: Callable[[], Path], start: int, frames: int) -> tuple[Path, bool]:
    """Write `frames` frames of a file, from index `start` on, with their sound; return the path and "was re-encoded".

    Sound is copied packet by packet, so it may end one packet (about 20 ms) early or late. Raises RequestError when the
    file has too few frames or cannot be read, OSError when the new file cannot be written.
    """
    import av

    try:
        with av.open(str(source)) as container:
            stream = container.streams.video[0]
            # Packets to discard lie before the first frame that players show (ISO/IEC 14496-12, edit lists).
            packets = [packet for packet in container.demux(stream) if packet.pts is not None and not packet.is_discard]
    except (av.error.FFmpegError, IndexError) as error:
        raise RequestError(f"{source.name} is not a video, or it is damaged ({error}). Fetch it again.") from error
    times = sorted(packet.pts for packet in packets)
    if frames < 1 or start < 0 or start + frames > len(times):
        raise RequestError(f"{source.name} has {len(times)} frames; frames {start + 1} to {start + frames} are not "
                           "there. Choose fewer.")
    wanted = set(times[start : start + frames])
    at = next(index for index, packet in enumerate(packets) if packet.pts == times[start])
    kept = packets[at : at + frames]
    as_stored = packets[at].is_keyframe and {packet.pts for packet in kept} == wanted
    with new_file(new_path) as file:
        try:
            with av.open(str(source)) as container, av.open(str(file.unfinished), "w", options=_OPTIONS) as output:
                output.metadata.update(container.metadata)
                time_base = container.streams.video[0].time_base
                end = times[start + frames] if start + frames < len(times) else times[-1] + (packets[-1].duration or 0)
                span = times[start] * time_base, end * time_base
                write = _copy if as_stored else _encode
                count = write(container, output, wanted, times[start], span)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise
            raise RequestError(f"{source.name} is damaged, or of a kind that cannot be cut ({error}). Fetch it "
                               "again.") from error
        if count < frames:
            raise RequestError(f"{source.name} is damaged: {count} of the {frames} wanted frames can be decoded. "
                               "Fetch it again.")
    return file.path, not as_stored


def _copy(container: InputContainer, output: OutputContainer, wanted: set[int], first: int,
          span: tuple[Fraction, Fraction]) -> int:
    """Copy the packets of the wanted times and the sound in `span`, in seconds; return the number of frames."""
    source = container.streams.video[0]
    target = add_copied_video(output, source)
    sound = [(stream, output.add_stream_from_template(stream)) for stream in container.streams.audio]
    for packet in container.demux(source, *(stream for stream, _ in sound)):
        if packet.stream.type == "audio":
            _copy_sound(packet, output, dict(sound), span)
        elif packet.pts in wanted:
            packet.pts, packet.dts = packet.pts - first, packet.dts - first
            packet.stream = target
            output.mux(packet)
    return len(wanted)


def _encode(container: InputContainer, output: OutputContainer, wanted: set[int], first: int,
            span: tuple[Fraction, Fraction]) -> int:
    """Encode the frames of the wanted times, in the source's pixel format and colours; return their number."""
    source = container.streams.video[0]
    target = output.add_stream(X264, rate=source.average_rate, options={"crf": f"{DEFAULT_CRF:g}"})
    context, origin = target.codec_context, source.codec_context
    target.width, target.height, target.pix_fmt = source.width, source.height, origin.pix_fmt
    context.time_base = source.time_base
    for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(context, name, getattr(origin, name))
    sound = [(stream, output.add_stream_from_template(stream)) for stream in container.streams.audio]
    count = 0
    for packet in container.demux(source, *(stream for stream, _ in sound)):
        if packet.stream.type == "audio":
            _copy_sound(packet, output, dict(sound), span)
            continue
        for frame in packet.decode():
            if frame.pts in wanted and not frame.is_corrupt:
                frame.pts, frame.pict_type = frame.pts - first, 0
                output.mux(target.encode(frame))
                count += 1
    output.mux(target.encode(None))
    return count


def _copy_sound(packet: Packet, output: OutputContainer, streams: dict, span: tuple[Fraction, Fraction]) -> None:
    if packet.pts is None:
        return
    start, end = (int(time / packet.time_base) for time in span)
    # A packet before the first frame is one that the AAC decoder needs to start.
    if (start == 0 or start <= packet.pts) and packet.pts < end:
        packet.stream, packet.pts, packet.dts = streams[packet.stream], packet.pts - start, packet.dts - start
        output.mux(packet)
