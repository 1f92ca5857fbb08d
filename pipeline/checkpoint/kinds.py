"""The models that weights can be of, and what tensor names and shapes show of them; detect.py detects it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

I2V_IN_CHANNELS = 36
"""Input channels of an I2V expert: 16 of the noisy latent, 4 of the mask, 16 of the picture's latent."""
PATCH = (1, 2, 2)
"""Frames, rows and columns of latents in a token, in every Wan model."""
Shapes = Mapping[str, tuple[int, ...]]


class ModelKind(str, Enum):
    """The model, or part of one, that weights are of."""

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
    VAE_OTHER = "vae_other"
    UMT5 = "umt5"
    T5 = "t5"
    LORA = "lora"
    PIPELINE = "pipeline"
    UNKNOWN = "unknown"


class KeyLayout(str, Enum):
    """The naming scheme of the tensors, or GGUF, which is read differently.

    NATIVE: Comfy-Org's names: those of the official code, and of transformers for UMT5. PREFIXED: the same behind
    `model.diffusion_model.`. OFFICIAL: the official code's names of UMT5.
    """

    NATIVE = "native"
    PREFIXED = "prefixed"
    DIFFUSERS = "diffusers"
    OFFICIAL = "official"
    GGUF = "gguf"


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a Wan transformer."""

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
    """The model that tensor names and shapes show.

    `shape`: of a whole transformer. `odd_part`: a part that no plain expert has, or what sets a VAE apart. `besides`:
    in an all-in-one checkpoint, the beginnings of the names that are not the transformer's.
    """

    kind: ModelKind
    layout: KeyLayout = KeyLayout.NATIVE
    shape: TransformerShape | None = None
    odd_part: str | None = None
    besides: tuple[str, ...] = ()
