"""Settings of an MP4, and the choice of the FFmpeg encoder that works on this machine.

Option names are FFmpeg's (doc/encoders.texi: libx264, libx265, libsvtav1; libavcodec/nvenc.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from ..request import FPS, RequestError

if TYPE_CHECKING:
    import numpy as np
    import torch

Pixels = TypeVar("Pixels", "np.ndarray", "torch.Tensor")
PIX_FMTS = ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
DEFAULT_CRF, MAX_CRF = 17.0, 51.0
MIN_FPS, MAX_FPS = 1.0, 120.0
PAD, CROP = ODD_SIZES = ("pad", "crop")
REFUSE, ON_BLACK, ON_WHITE = ALPHAS = ("refuse", "on black", "on white")

X264, X265, SVT_AV1 = "libx264", "libx265", "libsvtav1"
ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": (X264,),
    "hevc": (X265, X264),
    "av1": (SVT_AV1, X264),
    "h264_nvenc": ("h264_nvenc", X264),
    "hevc_nvenc": ("hevc_nvenc", X265, X264),
    "av1_nvenc": ("av1_nvenc", SVT_AV1, X264),
}
"""Codec -> encoders, in order of preference; the first that works is used."""
CODECS = tuple(ENCODERS)
_SUPPORTED: dict[str, tuple[str, ...]] = {
    "h264": PIX_FMTS,
    "hevc": PIX_FMTS,
    "av1": ("yuv420p", "yuv420p10le"),
    "h264_nvenc": ("yuv420p", "yuv444p"),
    "hevc_nvenc": ("yuv420p", "yuv444p", "yuv420p10le"),
    "av1_nvenc": ("yuv420p", "yuv420p10le"),
}
"""Codec -> pixel formats of its preferred encoder."""
_SVT_PRESETS = dict(zip(PRESETS, (10, 10, 9, 9, 8, 7, 5, 4, 2), strict=True))
_NVENC_PRESETS = dict(zip(PRESETS, ("p1", "p1", "p2", "p2", "p3", "p4", "p5", "p6", "p7"), strict=True))


@dataclass(frozen=True)
class Encoding:
    """Settings of an MP4: frame rate, quality, codec, pixel format, and how odd sizes and alpha are handled."""

    fps: float = float(FPS)
    crf: float = DEFAULT_CRF
    codec: str = "h264"
    pix_fmt: str = "yuv420p"
    preset: str = "medium"
    odd_size: str = PAD
    alpha: str = REFUSE

    def check(self) -> None:
        """Raise RequestError for the first value that no encoder takes."""
        for name, value, allowed in (("codec", self.codec, CODECS), ("pix_fmt", self.pix_fmt, PIX_FMTS),
                                     ("preset", self.preset, PRESETS), ("odd_size", self.odd_size, ODD_SIZES),
                                     ("alpha", self.alpha, ALPHAS)):
            if value not in allowed:
                raise RequestError(f"{name} is {value!r}; choose one of {', '.join(allowed)}.")
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise RequestError(f"fps is {self.fps:g}; choose {MIN_FPS:g} to {MAX_FPS:g} (Wan 2.2 makes {FPS}).")
        if not 0 <= self.crf <= MAX_CRF:
            raise RequestError(f"crf is {self.crf:g}; choose 0 to {MAX_CRF:g} (17 is visually clean).")
        if self.pix_fmt not in _SUPPORTED[self.codec]:
            raise RequestError(f"{self.codec} cannot hold {self.pix_fmt}; choose "
                               f"{' or '.join(_SUPPORTED[self.codec])}, or the codec h264, which holds all.")

    @property
    def rate(self) -> Fraction:
        """Return the exact frames a second; 23.98, 29.97 and 59.94 stand for the NTSC rates, n * 1000/1001."""
        ntsc = Fraction(round(self.fps) * 1000, 1001)
        if self.fps >= 10 and abs(self.fps - ntsc) < 0.005:
            return ntsc
        return Fraction(self.fps).limit_denominator(1000)

    @property
    def halves_chroma(self) -> bool:
        """True for 4:2:0, which needs even sides."""
        return self.pix_fmt.startswith("yuv420")

    @property
    def bits(self) -> int:
        """Return the bits a sample: 8 or 10."""
        return 10 if self.pix_fmt.endswith("10le") else 8


def on_background(frame: Pixels, alpha: str) -> Pixels:
    """Return a frame (H, W, 4), 0..1, composited on white or black to (H, W, 3). alpha: one of ALPHAS, not REFUSE."""
    colour, opacity = frame[..., :3], frame[..., 3:]
    return colour * opacity + (1 - opacity) if alpha == ON_WHITE else colour * opacity


# With AVX-512, x264 (core 165) reads memory that it has not written when a frame's width is no multiple of 128, so
# that the same frames give different bytes each time. Every CPU with AVX-512 has AVX2, which does not.
_REPEATABLE = "asm=AVX2,SSE2Fast"


LEAST_X265_WIDTH = 64
"""In pixels. For narrower frames x265 (4.1) frees memory that it was not given, which ends the whole program."""


def options(encoder: str, encoding: Encoding) -> dict[str, str]:
    """Return the encoder's own options for quality and speed."""
    import torch

    if encoder == SVT_AV1:  # crf 0 would mean that the encoder chooses
        return {"crf": f"{max(1, round(encoding.crf))}", "preset": str(_SVT_PRESETS[encoding.preset])}
    if encoder.endswith("_nvenc"):  # and so would cq 0
        return {"rc": "vbr", "cq": f"{max(1.0, encoding.crf):g}", "b": "0", "preset": _NVENC_PRESETS[encoding.preset]}
    common = {"crf": f"{encoding.crf:g}", "preset": encoding.preset}
    if encoder == X265:
        return {**common, "x265-params": "log-level=error"}
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return {**common, "x264-params": _REPEATABLE} if has_avx512 else common


def encoder_pix_fmt(encoder: str, encoding: Encoding) -> str:
    """Return the pixel format to hand to the encoder: NVENC wants 10 bits as p010le."""
    return "p010le" if encoder.endswith("_nvenc") and encoding.pix_fmt == "yuv420p10le" else encoding.pix_fmt


def choose_encoder(encoding: Encoding, width: int, height: int) -> tuple[str, str]:
    """Return the first encoder that opens for frames of this size, and a note when it is not the preferred one.

    Raises RequestError, with each encoder's fault, when none opens.
    """
    wanted, *others = ENCODERS[encoding.codec]
    refusals = {}
    for encoder in (wanted, *others):
        fault = _fault(encoder, encoding, width, height)
        if fault is None:
            return encoder, "" if encoder == wanted else (
                f"{wanted} does not work here ({refusals[wanted]}), so {encoder} wrote the file instead.")
        refusals[encoder] = fault
    faults = "; ".join(f"{encoder}: {fault}" for encoder, fault in refusals.items())
    raise RequestError(f"No encoder takes {encoding.codec} of {width}x{height} in {encoding.pix_fmt} ({faults}). "
                       "Choose another codec, size or pix_fmt; the frames are still in the graph.")


def _fault(encoder: str, encoding: Encoding, width: int, height: int) -> str | None:
    """Open the encoder for frames of this size; return why it cannot be opened, else None."""
    import av

    if encoder == X265 and width < LEAST_X265_WIDTH:
        return f"a width of {LEAST_X265_WIDTH} or more is needed"
    try:
        context = av.CodecContext.create(encoder, "w")
        context.width, context.height = width, height
        context.pix_fmt = encoder_pix_fmt(encoder, encoding)
        context.time_base = 1 / encoding.rate
        context.options = options(encoder, encoding)
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return None
