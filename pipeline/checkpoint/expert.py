"""A Wan 2.2 I2V-A14B expert: the single file Comfy-Org ships, in fp16, bf16 or fp32 -> WanTransformer3DModel.

Names of the file: wan/modules/model.py of github.com/Wan-Video/Wan2.2, bare or behind `model.diffusion_model.`.
The configuration follows from the shapes; heads are 128 wide in every Wan model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import CheckpointError, check_keys, load_exactly
from .safetensors_file import Header, read_header, read_tensors

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

PREFIX = "model.diffusion_model."
WHAT = "Wan 2.2 I2V-A14B expert"
HEAD_DIM = 128
I2V_IN_CHANNELS = 36
DTYPES = {"F16", "BF16", "F32"}


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


def transformer_config(header: Header) -> dict[str, int | bool]:
    """WanTransformer3DModel's configuration, from the shapes in the header.

    Raises CheckpointError for a file that holds something else than a Wan 2.2 I2V-A14B expert.
    """
    name = header.path.name
    shapes = {key.removeprefix(PREFIX): shape for key, shape in header.shapes.items()}
    if "patch_embedding.weight" not in shapes or "head.head.weight" not in shapes:
        raise CheckpointError(f"{name} holds no Wan transformer. Choose a diffusion model such as "
                              "wan2.2_i2v_high_noise_14B_fp16.safetensors.")
    if any(key.startswith("img_emb.") for key in shapes):
        raise CheckpointError(f"{name} is a Wan 2.1 image-to-video model (it has an image projection). "
                              "Choose a Wan 2.2 I2V-A14B expert.")
    dim, in_channels = shapes["patch_embedding.weight"][:2]
    if in_channels != I2V_IN_CHANNELS:
        kind = {16: "a text-to-video", 48: "a 5B text-and-image-to-video"}.get(in_channels, "another")
        raise CheckpointError(f"{name} is {kind} model: {in_channels} input channels, Wan 2.2 I2V-A14B needs "
                              f"{I2V_IN_CHANNELS}.")
    odd = sorted(set(header.dtypes.values()) - DTYPES)
    if odd:
        raise CheckpointError(f"{name} holds {', '.join(odd)} weights; this loader reads fp16, bf16 and fp32 files.")
    needed = {"text_embedding.0.weight", "time_embedding.0.weight", "blocks.0.ffn.0.weight"}
    check_keys(name, WHAT, needed, needed & set(shapes))
    blocks = {int(key.split(".")[1]) for key in shapes if key.startswith("blocks.")}
    return {
        "num_attention_heads": dim // HEAD_DIM,
        "attention_head_dim": HEAD_DIM,
        "in_channels": in_channels,
        "out_channels": shapes["head.head.weight"][0] // 4,
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "num_layers": max(blocks) + 1,
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
    }


def _build(config: dict[str, int | bool], linear: type[torch.nn.Linear]) -> WanTransformer3DModel:
    """The transformer without weights, its blocks' linear layers of the host's class."""
    import torch
    from diffusers import WanTransformer3DModel
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    with torch.device("meta"):
        model = WanTransformer3DModel(**config)
        for parent in list(model.blocks.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(parent, name, linear(child.in_features, child.out_features, bias=child.bias is not None))
    # Its tables are no part of any file, so they need real memory.
    model.rope = WanRotaryPosEmbed(model.config.attention_head_dim, model.config.patch_size,
                                   model.config.rope_max_seq_len)
    return model.eval().requires_grad_(False)


def _dtype_of(key: str, model: WanTransformer3DModel, stored: torch.dtype, compute: torch.dtype) -> torch.dtype:
    """Linear layers of the blocks keep the file's dtype; of the rest, what diffusers wants exact is float32."""
    import torch

    parent = model.get_submodule(key.rpartition(".")[0])
    if key.startswith("blocks.") and isinstance(parent, torch.nn.Linear):
        return stored
    exact = any(part in key for part in model._keep_in_fp32_modules)
    return torch.float32 if exact else compute


def load_expert(path: Path, host: Host) -> Expert:
    """Load one expert. Raises CheckpointError when the file is not a whole Wan 2.2 I2V-A14B expert.

    The blocks' linear layers, 98 % of the weights, stay memory-mapped in the file's dtype.
    """
    header = read_header(path)
    config = transformer_config(header)
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    tensors = convert_wan_transformer_to_diffusers(read_tensors(path))
    model = _build(config, host.linear)
    check_keys(path.name, WHAT, model.state_dict(), tensors)
    stored = tensors["blocks.0.ffn.net.0.proj.weight"].dtype
    compute = host.compute_dtype(stored)
    cast = {key: value.to(_dtype_of(key, model, stored, compute)) for key, value in tensors.items()}
    load_exactly(path.name, WHAT, model, cast)
    rgb = json.loads(header.metadata["latent_rgb"]) if "latent_rgb" in header.metadata else None
    return Expert(path.name, host.adopt(model), compute, config["text_dim"], rgb)
