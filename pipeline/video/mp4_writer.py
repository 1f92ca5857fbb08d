"""Frames -> an H.264 MP4 that plays everywhere: yuv420p, BT.709 and tagged so, index at the front."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BT709 = 1
"""Code of BT.709 primaries, transfer and matrix alike (ITU-T H.273, tables 2 to 4)."""
LIMITED_RANGE = 1
AI_GENERATED = {
    "comment": "AI-generated video (Wan 2.2 image-to-video, ComfyUI-Wan22)",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
"""Metadata of a clip that a model made; the second is IPTC's term for such media."""


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: float, crf: float, metadata: dict[str, str],
              on_frame: Callable[[int], None] = lambda count: None) -> None:
    """Encode frames (H, W, 3), uint8 RGB, as they come.

    crf: 0 (lossless) to 51, 17 is visually clean. Odd sides are repeated at the edge by one pixel, as 4:2:0 needs.
    The file appears under `path` only when it is whole: it is written under another name beside it, and removed
    when anything goes wrong. Raises OSError when it cannot be written, ValueError when there are no frames.
    """
    import av
    import numpy as np

    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.part.mp4")
    try:
        with av.open(str(unfinished), "w", options={"movflags": "use_metadata_tags+faststart"}) as container:
            container.metadata.update(metadata)
            stream = None
            for count, frame in enumerate(frames, start=1):
                height, width = frame.shape[:2]
                if height % 2 or width % 2:
                    frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                if stream is None:
                    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                    stream.width, stream.height, stream.pix_fmt = frame.shape[1], frame.shape[0], "yuv420p"
                    stream.options = {"crf": f"{crf:g}", "preset": "medium"}
                    context = stream.codec_context
                    context.color_primaries = context.color_trc = context.colorspace = BT709
                    context.color_range = LIMITED_RANGE
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
                container.mux(stream.encode(picture))
                on_frame(count)
            if stream is None:
                raise ValueError("There are no frames to write.")
            container.mux(stream.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
