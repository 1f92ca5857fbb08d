"""A stream of one file copied into another, packet by packet, without encoding it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import OutputContainer


def add_copied_video(output: OutputContainer, source: VideoStream) -> VideoStream:
    """Return a new stream of an MP4 for the packets of `source`, of any codec that an MP4 holds."""
    # Opaque: PyAV else looks for an encoder of the decoder's name, and there is none of libdav1d's.
    stream = output.add_stream_from_template(source, opaque=True)
    if source.codec_context.codec.canonical_name == "hevc":
        stream.codec_context.codec_tag = "hvc1"  # Apple's players know no other
    return stream
