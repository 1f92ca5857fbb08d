"""What weights can be, and what their names and shapes can tell: the vocabulary. tell.py does the telling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

I2V_IN_CHANNELS = 36
"""Of an I2V expert: 16 of the noisy latent, 4 of the mask, 16 of the picture's latent."""
PATCH = (1, 2, 2)
"""Frames, rows and columns of latents in one token; the same in every Wan model."""
Shapes = Mapping[str, tuple[int, ...]]


class ModelKind(str, Enum):
    """What some weights are."""

    WAN22_I2V_EXPERT = "wan22_i2v_expert"
    WAN21_I2V = "wan21_i2v"
    T2V = "t2v"
    TI2V_5B = "ti2v_5b"
    VACE = "vace"
    FUN_CONTROL = "fun_control"
    FUN_CAMERA = "fun_camera"
    S2V = "s2v"
    ANIMATE = "animate"
    HUMO = "humo"
    SCAIL = "scail"
    WANDANCER = "wandancer"
    OTHER_WAN = "other_wan"
    VAE_WAN21 = "vae_wan21"
    VAE_WAN22 = "vae_wan22"
    UMT5 = "umt5"
    T5 = "t5"
    LORA = "lora"
    PIPELINE = "pipeline"
    UNKNOWN = "unknown"


class KeyLayout(str, Enum):
    """How the tensors are named, or GGUF, where that decides how they are read.

    NATIVE: as Comfy-Org names them, which is as the official code does but for UMT5, where it is as transformers does.
    PREFIXED: the same behind `model.diffusion_model.`. OFFICIAL: the official code's names of UMT5.
    """

    NATIVE = "native"
    PREFIXED = "prefixed"
    DIFFUSERS = "diffusers"
    OFFICIAL = "official"
    GGUF = "gguf"


@dataclass(frozen=True)
class TransformerShape:
    """The sizes of a Wan transformer, as its tensors have them."""

    dim: int
    ffn_dim: int
    num_layers: int
    in_channels: int
    out_channels: int
    text_dim: int
    freq_dim: int
    cross_attn_norm: bool


@dataclass(frozen=True)
class Detected:
    """What the names and shapes tell. `shape` is of a whole transformer, `odd_part` the part no plain expert has."""

    kind: ModelKind
    layout: KeyLayout = KeyLayout.NATIVE
    shape: TransformerShape | None = None
    odd_part: str | None = None
