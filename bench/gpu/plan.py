"""The rows of the report, in the order in which they tell most, in parts that each need a ComfyUI of their own.

Imports no torch: the process that plans and reports has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

OURS, COMFYUI = ENGINES = ("ours", "ComfyUI")
FULL_EXPERT = {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824}
SMALL_EXPERT = {"num_attention_heads": 2, "num_layers": 2, "ffn_dim": 512}
"""WanTransformer3DModel's configuration, beside what all sizes of I2V-A14B share (tests/support/full_size.py)."""
SMALLER_GPUS = (12, 8, 6)
"""GiB that a small GPU has: the first is used that is at most three quarters of the GPU at hand."""


@dataclass(frozen=True)
class Size:
    """Sizes of the expert, of the clips and of their files."""

    expert: Mapping[str, int]
    clips: Mapping[str, tuple[int, int, int]]
    """Name -> width, height, frames."""
    scratch_gb: float
    """GB on the disk for all weights."""
    bundled_vae: bool = False


FULL = Size(FULL_EXPERT, {"480p": (832, 480, 81), "720p": (1280, 720, 81)}, 29.5)
SMALL = Size(SMALL_EXPERT, {"480p": (96, 64, 5), "720p": (128, 80, 5)}, 0.1, bundled_vae=True)


@dataclass(frozen=True)
class Row:
    """One thing to measure, by both engines."""

    name: str
    measure: str
    """A function of measure.py."""
    clip: str = "480p"
    lora: bool = False
    guidance_scale: float = 1.0


@dataclass(frozen=True)
class Part:
    """Rows that run in one process, because ComfyUI reads its options once."""

    name: str
    title: str
    rows: tuple[Row, ...]
    options: tuple[str, ...] = ()
    """Of ComfyUI's command line."""
    held_gib: float = 0.0
    """GiB of the device that the process takes for itself, as another program would."""


@dataclass
class Found:
    """The result of a row by one engine, or its error."""

    values: dict[str, float] = field(default_factory=dict)
    """`seconds` of a repetition, `first` of the first one; `torch` and `device`: peaks in GiB; `tflops` a second."""
    facts: dict[str, str] = field(default_factory=dict)
    """Further figures by name."""
    log: list[str] = field(default_factory=list)
    """Lines that ComfyUI logged meanwhile, or the end of a traceback."""
    error: str = ""


def parts(total_gib: float) -> list[Part]:
    """Return all parts for a device of that many GiB, in the order of how much they tell."""
    left = next((size for size in SMALLER_GPUS if size <= 0.75 * total_gib), total_gib / 2)
    taken = total_gib - left
    some = (Row("A pass", "passes"), Row("A pass with a LoRA of rank 32", "passes", lora=True),
            Row("Change of expert", "switch"))
    at_720p = (Row("A pass", "passes", "720p"), Row("A pass with a LoRA of rank 32", "passes", "720p", lora=True),
               Row("VAE decode", "decode", "720p"), Row("VAE encode", "encode", "720p"))
    return [
        Part("480p", "All of the device's memory, 480p", (
            Row("The bundled model", "equality"), *some, Row("VAE decode", "decode"), Row("VAE encode", "encode"),
            Row("Where a pass spends its time", "profile"))),
        Part("small", f"A small GPU: --reserve-vram {taken:.1f} leaves {left:.1f} GiB, 480p",
             (*some, Row("VAE decode", "decode")), ("--reserve-vram", f"{taken:.1f}")),
        Part("720p", "All of the device's memory, 720p", (
            *at_720p, Row("A step at guidance 5, 480p", "passes", guidance_scale=5.0),
            Row("MP4, on the CPU", "mp4", "720p"))),
        Part("held", f"A small GPU: another program holds all but {left:.1f} GiB", (
            Row("A pass, 480p", "passes"), Row("VAE decode, 720p", "decode", "720p")), held_gib=taken),
        Part("static", "Without dynamic VRAM (--disable-dynamic-vram), 480p", some, ("--disable-dynamic-vram",)),
    ]


PARTS = tuple(part.name for part in parts(80.0))
