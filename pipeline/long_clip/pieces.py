"""The pieces of a long clip as one MP4, without encoding them again.

A piece is a file of its own that begins with a key frame and refers to nothing outside, so that packets can be copied
behind each other. Only the last frames, which no later segment fades into, are encoded here, as a piece too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..request import RequestError
from ..video.copied_stream import add_copied_video
from ..video.probe import VideoFacts
from ..video.sound import Sound, SoundTrack

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer

_OPTIONS = {"movflags": "use_metadata_tags+faststart"}


def join_pieces(pieces: Sequence[Path], path: Path, rate: Fraction, metadata: dict[str, str], sound: Sound | None,
                stop: Callable[[], None] = lambda: None) -> VideoFacts:
    """Write the frames of all pieces, of `rate` frames a second, behind each other into an MP4; return its facts.

    sound: cut or filled with silence to the clip's length. stop() raises to end the run. Raises RequestError for a
    piece that another encoder made, OSError when the file cannot be written.
    """
    import av

    delay = max(_delay(piece, rate) for piece in pieces)
    with av.open(str(path), "w", options=_OPTIONS) as output:
        output.metadata.update(metadata)
        with av.open(str(pieces[0])) as first:
            source = first.streams.video[0]
            headers = bytes(source.codec_context.extradata or b"")
            stream = add_copied_video(output, source)
            context = source.codec_context
            facts = (context.codec.canonical_name, context.pix_fmt, context.width, context.height)
        stream.time_base = 1 / rate
        track = None if sound is None else SoundTrack(output, sound)
        count = 0
        for piece in pieces:
            stop()
            with av.open(str(piece)) as container:
                if bytes(container.streams.video[0].codec_context.extradata or b"") != headers:
                    raise RequestError(f"{piece.name} was made by another encoder than {pieces[0].name}, so that they "
                                       "do not fit into one file. Choose the codec h264, or delete both.")
                count = _copy(container, output, stream, count, delay, rate, track)
        if track is not None:
            output.mux(list(track.rest()))
    return VideoFacts(*facts, rate, count, sound is not None)


def _copy(container: InputContainer, output: OutputContainer, stream: Any, done: int, delay: int, rate: Fraction,
          track: SoundTrack | None) -> int:
    """Copy a piece's packets behind `done` frames; return how many frames there are then."""
    count = 0
    for packet, frame in _packets(container, rate):
        packet.stream = stream
        packet.time_base = 1 / rate
        packet.pts, packet.dts, packet.duration = done + frame, done + count - delay, 1
        count += 1
        output.mux(packet)
        if track is not None:
            output.mux(list(track.until((done + count) / rate)))
    return done + count


def _packets(container: InputContainer, rate: Fraction) -> Iterator[tuple[Packet, int]]:
    """Yield the packets of a piece in the order of decoding, each with its frame's number, from 0."""
    for packet in container.demux(container.streams.video[0]):
        if packet.pts is not None:
            yield packet, round(packet.pts * packet.time_base * rate)


def _delay(piece: Path, rate: Fraction) -> int:
    """Return by how many frames a piece's packets come before their time, since B frames wait for later ones."""
    import av

    with av.open(str(piece)) as container:
        return max(count - frame for count, (_, frame) in enumerate(_packets(container, rate)))
