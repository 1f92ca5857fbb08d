"""The settings of an MP4, as Save MP4 and Decode to MP4 show them."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.request import FPS
from ..pipeline.video import encoding, provenance
from ..pipeline.video.mp4_settings import settings_fault

HIDDEN = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]


def mp4_inputs() -> list[io.Input]:
    """Return the widgets, and the socket for sound."""
    return [
        io.Float.Input("fps", default=float(FPS), min=encoding.MIN_FPS, max=encoding.MAX_FPS, step=0.01,
                       tooltip="Frames per second; Wan 2.2 makes 16. 23.98 and 29.97 mean the exact NTSC rates."),
        io.String.Input("filename_prefix", default="wan22/clip",
                        tooltip="Folder and beginning of the file name inside ComfyUI's output folder; a number is "
                                "added. %date:yyyy-MM-dd% and %NodeName.widget% are replaced."),
        io.Float.Input("crf", default=encoding.DEFAULT_CRF, min=0.0, max=encoding.MAX_CRF, step=1.0, optional=True,
                       advanced=True,
                       tooltip="Quality: 17 is visually lossless, higher values make smaller files. HEVC and AV1 have "
                               "scales of their own: the same value gives a smaller file."),
        io.Boolean.Input("mark_ai_generated", default=True, optional=True, advanced=True,
                         tooltip="Note in the file's metadata that the clip is AI-generated, and by which model."),
        io.Combo.Input("codec", options=list(encoding.CODECS), default="h264", optional=True, advanced=True,
                       tooltip="H.264 plays everywhere. HEVC and AV1 make smaller files, encode more slowly and play "
                               "in fewer programs (HEVC not in most browsers). NVENC needs an NVIDIA GPU. If an "
                               "encoder is not available, the next best one writes the file and the node shows which."),
        io.Combo.Input("preset", options=list(encoding.PRESETS), default="medium", optional=True, advanced=True,
                       tooltip="Encoding speed: slower presets make smaller files of the same quality."),
        io.Combo.Input("pix_fmt", options=list(encoding.PIX_FMTS), default="yuv420p", optional=True, advanced=True,
                       tooltip="yuv420p plays everywhere. yuv444p keeps colour at full resolution; ...10le has 10 "
                               "bits, with smoother gradients. Use these for editing: few players read them."),
        io.Combo.Input("odd_size", options=list(encoding.ODD_SIZES), default=encoding.PAD, optional=True, advanced=True,
                       tooltip="4:2:0 needs even sides. pad repeats the last row or column of an odd side, crop cuts "
                               "it off."),
        io.Combo.Input("alpha", options=list(encoding.ALPHAS), default=encoding.REFUSE, optional=True, advanced=True,
                       tooltip="MP4 has no transparency. Refuse images with an alpha channel, or composite them on "
                               "black or on white."),
        io.Combo.Input("metadata", options=list(provenance.METADATA), default=provenance.WORKFLOW, optional=True,
                       advanced=True,
                       tooltip="full workflow: drop the file on the canvas to get the graph back. request only: "
                               "prompt, seed and settings, without the graph. none: neither."),
        io.Audio.Input("audio", optional=True,
                       tooltip="Sound, encoded as AAC; cut, or padded with silence, to the clip's length."),
    ]


class Mp4Node(io.ComfyNode):
    """Validate the typed settings at /prompt, for both nodes."""

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None = None, codec: str | None = None,
                        pix_fmt: str | None = None) -> bool | str:
        return settings_fault({"filename_prefix": filename_prefix, "codec": codec, "pix_fmt": pix_fmt}) or True
