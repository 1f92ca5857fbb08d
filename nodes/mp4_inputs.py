"""The settings of an MP4, as Save MP4 and Decode to MP4 show them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..pipeline.files.names import fill_in, name_fault
from ..pipeline.request import FPS, RequestError
from ..pipeline.video import encoding, provenance
from ..pipeline.video.encoding import Encoding
from .shown_clip import shown_clip

if TYPE_CHECKING:
    from ..pipeline.video.mp4_writer import Written
    from ..pipeline.video.save import Mp4

HIDDEN = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]


def mp4_inputs() -> list[io.Input]:
    """Widgets and the socket of the sound."""
    return [
        io.Float.Input("fps", default=float(FPS), min=encoding.MIN_FPS, max=encoding.MAX_FPS, step=0.01,
                       tooltip="Frames a second; Wan 2.2 makes 16. 23.98 and 29.97 are the NTSC rates, exactly."),
        io.String.Input("filename_prefix", default="wan22/clip",
                        tooltip="Folder and first part of the file's name inside ComfyUI's output folder; a number "
                                "follows. Takes %date:yyyy-MM-dd% and %NodeName.widget%."),
        io.Float.Input("crf", default=encoding.DEFAULT_CRF, min=0.0, max=encoding.MAX_CRF, step=1.0, optional=True,
                       advanced=True,
                       tooltip="Quality: 17 is visually clean, higher makes smaller files. HEVC and AV1 count "
                               "differently: there the same number is a smaller file."),
        io.Boolean.Input("mark_ai_generated", default=True, optional=True, advanced=True,
                         tooltip="Say in the file's metadata that the clip is AI-generated, and by which model."),
        io.Combo.Input("codec", options=list(encoding.CODECS), default="h264", optional=True, advanced=True,
                       tooltip="H.264 plays everywhere. HEVC and AV1 are smaller, slower to make and play in fewer "
                               "places (HEVC not in most browsers). NVENC needs an NVIDIA GPU; where it or an encoder "
                               "is missing, the next best one writes the file and the node says so."),
        io.Combo.Input("preset", options=list(encoding.PRESETS), default="medium", optional=True, advanced=True,
                       tooltip="Speed: slower presets make smaller files of the same quality."),
        io.Combo.Input("pix_fmt", options=list(encoding.PIX_FMTS), default="yuv420p", optional=True, advanced=True,
                       tooltip="yuv420p plays everywhere. yuv444p keeps colour at full resolution; ...10le has 10 "
                               "bits, with smoother gradients. Both are for editing programs and few players."),
        io.Combo.Input("odd_size", options=list(encoding.ODD_SIZES), default=encoding.PAD, optional=True, advanced=True,
                       tooltip="4:2:0 needs even sides: repeat the last row or column of an odd one, or cut it off."),
        io.Combo.Input("alpha", options=list(encoding.ALPHAS), default=encoding.REFUSE, optional=True, advanced=True,
                       tooltip="MP4 has no transparency: refuse images with an alpha channel, or put them on black or "
                               "on white."),
        io.Combo.Input("metadata", options=list(provenance.METADATA), default=provenance.WORKFLOW, optional=True,
                       advanced=True,
                       tooltip="full workflow: the file dropped on the canvas brings the graph back. request only: "
                               "prompt, seed and settings without the graph. none: neither."),
        io.Audio.Input("audio", optional=True,
                       tooltip="Sound, as AAC; cut or filled with silence to the clip's length."),
    ]


def check_mp4(values: dict[str, Any]) -> str:
    """A sentence when the typed values cannot make a file, or an empty string. A linked value is None or not there."""
    known = {key: value for key, value in values.items() if value is not None}
    metadata = known.pop("metadata", provenance.WORKFLOW)
    fault = name_fault(known.pop("filename_prefix", "clip"))
    if metadata not in provenance.METADATA:
        fault += f" metadata is {metadata!r}; choose one of {', '.join(provenance.METADATA)}."
    try:
        Encoding(**known).check()
    except RequestError as error:
        fault += f" {error}"
    return fault.strip()


def save_mp4(hidden: Any, width: int, height: int, values: dict[str, Any],
             write: Callable[[Mp4, Callable[[int, int], None], Callable[[], None]], Written]) -> io.NodeOutput:
    """Have `write` make the file that the values of `mp4_inputs` describe; the VIDEO of it, shown on the node."""
    from datetime import datetime

    from ..pipeline.host.files import new_output_file, workflow_metadata
    from ..pipeline.host.node import errors_on_node, progress, say, stop_if_asked
    from ..pipeline.host.video import video_from
    from ..pipeline.video.save import Mp4

    values = dict(values)
    prefix, audio = values.pop("filename_prefix"), values.pop("audio", None)
    mark, kept = values.pop("mark_ai_generated", True), values.pop("metadata", provenance.WORKFLOW)
    prompt, node_id = hidden.prompt, hidden.unique_id
    with errors_on_node(node_id):
        fault = check_mp4({**values, "filename_prefix": prefix, "metadata": kept})  # linked values come here unseen
        if fault:
            raise RequestError(fault)
        prefix = fill_in(prefix, prompt, hidden.extra_pnginfo, datetime.now())
        if name_fault(prefix):
            raise RequestError(name_fault(prefix))
        metadata = workflow_metadata(prompt, hidden.extra_pnginfo)
        if kept != provenance.WORKFLOW:
            metadata = provenance.request_of(prompt, node_id) if metadata and kept == provenance.REQUEST else {}
        if mark:
            metadata |= provenance.ai_generated(prompt, node_id)
        mp4 = Mp4(lambda: new_output_file(prefix, width, height, ".mp4"), Encoding(**values), metadata,
                  audio)
        written = write(mp4, progress(), stop_if_asked)
        if written.note:
            say(node_id, written.note)
        return io.NodeOutput(video_from(written.path), ui=shown_clip(written.path, written.clip))
