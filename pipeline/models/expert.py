"""A Wan 2.2 I2V-A14B expert -> WanTransformer3DModel.

Names of single files: wan/modules/model.py of github.com/Wan-Video/Wan2.2, bare or behind `model.diffusion_model.`;
diffusers folders have diffusers' own. The configuration follows from the shapes; heads are 128 wide in every Wan
model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint.errors import CheckpointError
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import Found, probe
from ..checkpoint.quantised import FP8_FORMATS, QuantisedWeight, Weight, dequantise
from ..checkpoint.read import check_weights, read_weights
from .attention import HostAttention
from .host import Host, Patch, Resident, WeightTaker

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

WHAT = "Wan 2.2 I2V-A14B expert"
HEAD_DIM = 128
TELLS_DTYPE = "condition_embedder.time_embedder.linear_1"
"""The dtype of its weight is the one that diffusers embeds the time in, so it is stored in that."""


@dataclass(frozen=True)
class Expert:
    """One expert, ready to run.

    `latent_rgb` maps its normalised latents to preview colours, where the file says; `size` is that of its files, in
    bytes; `patches` are in force while it runs.
    """

    name: str
    resident: Resident
    compute_dtype: torch.dtype
    text_dim: int
    latent_rgb: tuple[list[list[float]], list[float]] | None
    files: tuple[Path, ...]
    size: int
    patches: tuple[Patch, ...] = ()

    @property
    def model(self) -> WanTransformer3DModel:
        """The transformer; ask `resident.bring` first."""
        return self.resident.module


def _diffusers_names(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Weights under diffusers' names, whichever they have."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return weights if "proj_out.weight" in weights else convert_wan_transformer_to_diffusers(weights)


def transformer_config(found: Found) -> dict[str, int | bool]:
    """WanTransformer3DModel's configuration, from the shapes in the header.

    Raises CheckpointError for a file that holds something else than a whole Wan 2.2 I2V-A14B expert.
    """
    check_slot(found, Slot.HIGH)
    if found.shape is None:
        raise CheckpointError(f"{found.name} is not a whole {WHAT}: a tensor that tells its size is missing. Fetch it "
                              "again, or choose another.")
    sizes = asdict(found.shape)
    return {"num_attention_heads": sizes.pop("dim") // HEAD_DIM, "attention_head_dim": HEAD_DIM, **sizes}


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
          linear: Callable[[torch.dtype], Callable[..., WeightTaker]]) -> None:
    """Give the model its weights: linear layers, 99 % of them, become the host's and keep theirs as stored; of the
    rest, what diffusers wants exact is float32."""
    import torch

    def exact(name: str) -> bool:
        return any(part in name for part in model._keep_in_fp32_modules)

    layers = {name: layer for name, layer in model.named_modules()
              if isinstance(layer, torch.nn.Linear) and name != TELLS_DTYPE}
    rest = {key: dequantise(weight, torch.float32 if exact(key) else compute)
            for key, weight in weights.items() if key.rpartition(".")[0] not in layers}
    model.load_state_dict(rest, assign=True, strict=False)
    plain, in_float32 = linear(compute), linear(torch.float32)
    for name, layer in layers.items():
        with torch.device("meta"):
            new = (in_float32 if exact(name) else plain)(layer.in_features, layer.out_features,
                                                         bias=layer.bias is not None)
        new.take(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def _stored_dtype(weight: Weight) -> torch.dtype:
    """Dtype of a weight, as far as it bears on the dtype to calculate in; bfloat16, Wan's own, for packed integers."""
    import torch

    packed = isinstance(weight, QuantisedWeight)
    return FP8_FORMATS.get(weight.format, torch.bfloat16) if packed else weight.dtype


def load_expert(path: Path, host: Host) -> Expert:
    """Load one expert from a .safetensors or .gguf file or a diffusers folder.

    Raises CheckpointError when it is not a whole Wan 2.2 I2V-A14B expert. Linear layers stay
    memory-mapped, in the dtype and the packing they have.
    """
    found = probe(path)
    config = transformer_config(found)
    weights, metadata = read_weights(path)
    weights = _diffusers_names(weights)
    model = _empty(config)
    check_weights(path.name, WHAT, model.state_dict(), weights)
    compute = host.compute_dtype(_stored_dtype(weights["blocks.0.ffn.net.0.proj.weight"]))
    try:
        _fill(model, weights, compute, host.linear)
    except CheckpointError as error:  # a layer does not know which file it is of
        raise CheckpointError(f"{path.name}: {error}") from error
    if host.attend is not None:
        model.set_attn_processor(HostAttention(host.attend))
    return Expert(path.name, host.adopt(model), compute, model.config.text_dim,
                  _latent_rgb(metadata, model.config.out_channels), found.files, found.size)


def _latent_rgb(metadata: dict[str, str], channels: int) -> tuple[list[list[float]], list[float]] | None:
    """What the file says of preview colours; None for nothing that can be used, which is no reason to fail."""
    with suppress(KeyError, ValueError, TypeError, RecursionError):
        factors, bias = json.loads(metadata["latent_rgb"])
        if np.shape(factors) == (channels, 3) and np.shape(bias) == (3,):
            return np.asarray(factors, float).tolist(), np.asarray(bias, float).tolist()
    return None
