"""A Wan 2.2 I2V-A14B expert -> WanTransformer3DModel.

Names of single files: wan/modules/model.py of github.com/Wan-Video/Wan2.2, bare or behind `model.diffusion_model.`;
diffusers folders have diffusers' own. The configuration follows from the shapes; heads are 128 wide in every Wan
model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident, WeightTaker
from .errors import CheckpointError, check_keys, check_weights
from .quantised import FP8_FORMATS, QuantisedWeight, Weight, dequantise
from .read import read_weights

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

WHAT = "Wan 2.2 I2V-A14B expert"
HEAD_DIM = 128
I2V_IN_CHANNELS = 36


@dataclass(frozen=True)
class Expert:
    """One expert, ready to run. `latent_rgb` maps its normalised latents to preview colours, where the file says."""

    name: str
    resident: Resident
    compute_dtype: torch.dtype
    text_dim: int
    latent_rgb: tuple[list[list[float]], list[float]] | None

    @property
    def model(self) -> WanTransformer3DModel:
        """The transformer; ask `resident.bring` first."""
        return self.resident.module


def _diffusers_names(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Weights under diffusers' names, whichever they have."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return weights if "proj_out.weight" in weights else convert_wan_transformer_to_diffusers(weights)


def transformer_config(name: str, weights: dict[str, Weight]) -> dict[str, int | bool]:
    """WanTransformer3DModel's configuration, from the shapes of the weights under diffusers' names.

    Raises CheckpointError, naming the file, for something else than a Wan 2.2 I2V-A14B expert.
    """
    if "patch_embedding.weight" not in weights or "proj_out.weight" not in weights:
        raise CheckpointError(f"{name} holds no Wan transformer. Choose a diffusion model such as "
                              "wan2.2_i2v_high_noise_14B_fp16.safetensors.")
    if any(key.startswith("condition_embedder.image_embedder.") for key in weights):
        raise CheckpointError(f"{name} is a Wan 2.1 image-to-video model (it has an image projection). "
                              "Choose a Wan 2.2 I2V-A14B expert.")
    dim, in_channels = weights["patch_embedding.weight"].shape[:2]
    if in_channels != I2V_IN_CHANNELS:
        kind = {16: "a text-to-video", 48: "a 5B text-and-image-to-video"}.get(in_channels, "another")
        raise CheckpointError(f"{name} is {kind} model: {in_channels} input channels, Wan 2.2 I2V-A14B needs "
                              f"{I2V_IN_CHANNELS}.")
    text, time = (f"condition_embedder.{part}_embedder.linear_1.weight" for part in ("text", "time"))
    feed_forward = "blocks.0.ffn.net.0.proj.weight"
    check_keys(name, WHAT, {text, time, feed_forward}, {text, time, feed_forward} & set(weights))
    return {
        "num_attention_heads": dim // HEAD_DIM,
        "attention_head_dim": HEAD_DIM,
        "in_channels": in_channels,
        "out_channels": weights["proj_out.weight"].shape[0] // 4,
        "text_dim": weights[text].shape[1],
        "freq_dim": weights[time].shape[1],
        "ffn_dim": weights[feed_forward].shape[0],
        "num_layers": max(int(key.split(".")[1]) for key in weights if key.startswith("blocks.")) + 1,
        "cross_attn_norm": "blocks.0.norm2.weight" in weights,
    }


def _empty(config: dict[str, int | bool]) -> WanTransformer3DModel:
    """The transformer without weights."""
    import torch
    from diffusers import WanTransformer3DModel
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    with torch.device("meta"):
        model = WanTransformer3DModel(**config)
    # Its tables are no part of any file, so they need real memory.
    model.rope = WanRotaryPosEmbed(model.config.attention_head_dim, model.config.patch_size,
                                   model.config.rope_max_seq_len)
    return model.eval().requires_grad_(False)


def _fill(model: WanTransformer3DModel, weights: dict[str, Weight], compute: torch.dtype,
          linear: Callable[..., WeightTaker]) -> None:
    """Give the model its weights: the blocks' linear layers, 98 % of them, become the host's and keep them as stored;
    of the rest, what diffusers wants exact is float32."""
    import torch

    layers = {name: layer for name, layer in model.blocks.named_modules(prefix="blocks")
              if isinstance(layer, torch.nn.Linear)}
    exact = model._keep_in_fp32_modules
    rest = {key: dequantise(weight, torch.float32 if any(part in key for part in exact) else compute)
            for key, weight in weights.items() if key.rpartition(".")[0] not in layers}
    model.load_state_dict(rest, assign=True, strict=False)
    for name, layer in layers.items():
        with torch.device("meta"):
            new = linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        new.take(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def _stored_dtype(weight: Weight) -> torch.dtype:
    """Dtype of a weight, as far as it bears on the dtype to calculate in; bfloat16, Wan's own, for packed integers."""
    import torch

    packed = isinstance(weight, QuantisedWeight)
    return FP8_FORMATS.get(weight.format, torch.bfloat16) if packed else weight.dtype


def load_expert(path: Path, host: Host) -> Expert:
    """Load one expert from a file or a diffusers folder.

    Raises CheckpointError when it is not a whole Wan 2.2 I2V-A14B expert. The blocks' linear layers stay
    memory-mapped, in the dtype and the packing they have.
    """
    weights, metadata = read_weights(path)
    weights = _diffusers_names(weights)
    model = _empty(transformer_config(path.name, weights))
    check_weights(path.name, WHAT, model.state_dict(), weights)
    compute = host.compute_dtype(_stored_dtype(weights["blocks.0.ffn.net.0.proj.weight"]))
    _fill(model, weights, compute, host.linear(compute))
    rgb = json.loads(metadata["latent_rgb"]) if "latent_rgb" in metadata else None
    return Expert(path.name, host.adopt(model), compute, model.config.text_dim, rgb)
