"""Load a Wan 2.2 I2V-A14B expert as diffusers' WanTransformer3DModel, on a host.

Single files have the names of wan/modules/model.py of github.com/Wan-Video/Wan2.2, bare or behind
`model.diffusion_model.`, where all-in-one checkpoints hold a VAE and a text encoder besides; diffusers folders have
diffusers' names. The configuration follows from the shapes; heads are 128 wide in every Wan model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint.detect import PREFIX
from ..checkpoint.errors import CheckpointError
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import CheckpointFacts, probe_checkpoint
from ..checkpoint.quantised import Weight, dequantise, stored_dtype
from ..checkpoint.read import check_weights, read_weights
from .attention import Attend, use_attention
from .host import Host, HostLinear, Resident
from .layers import linear_names, replace_linear
from .patches import Patch

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

WHAT = "Wan 2.2 I2V-A14B expert"
HEAD_DIM = 128
TIME_EMBEDDER = "condition_embedder.time_embedder.linear_1"
"""diffusers computes the time embedding in the dtype of its weight, so that it stays a plain layer in that dtype."""


@dataclass(frozen=True)
class Expert:
    """One expert, ready to run.

    `latent_rgb`: factors (16, 3) and bias (3,) from normalised latents to preview colours, when its file has them.
    `size`: of its files, in bytes. `patches` are in force, and `attend` is its attention, while the sampler runs it.
    """

    name: str
    resident: Resident
    compute_dtype: torch.dtype
    text_dim: int
    latent_rgb: tuple[list[list[float]], list[float]] | None
    files: tuple[Path, ...]
    size: int
    patches: tuple[Patch, ...] = ()
    attend: Attend | None = None

    @property
    def model(self) -> WanTransformer3DModel:
        """The transformer; call `resident.load_to_device` before each use."""
        return self.resident.module


def load_expert(path: Path, host: Host) -> Expert:
    """Load one expert from a .safetensors or .gguf file or a diffusers folder.

    Linear layers stay memory-mapped, in the dtype and quantisation that they have. Raises CheckpointError when it is
    not a whole Wan 2.2 I2V-A14B expert.
    """
    facts = probe_checkpoint(path)
    config = transformer_config(facts)
    weights, metadata = read_weights(path, PREFIX if facts.besides else "", host.map_file)
    weights = _rename_to_diffusers(weights)
    model = _empty(config)
    check_weights(path.name, WHAT, model.state_dict(), weights)
    compute = host.compute_dtype(stored_dtype(weights["blocks.0.ffn.net.0.proj.weight"]))
    try:
        _fill(model, weights, compute, host.linear)
    except CheckpointError as error:  # a layer does not know its file
        raise CheckpointError(f"{path.name}: {error}") from error
    use_attention(model, host.attend, {})
    return Expert(path.name, host.adopt(model), compute, model.config.text_dim,
                  _latent_rgb(metadata, model.config.out_channels), facts.files, facts.size, attend=host.attend)


def transformer_config(facts: CheckpointFacts) -> dict[str, int | bool]:
    """Return WanTransformer3DModel's configuration, from the shapes in the header.

    Raises CheckpointError for anything but a whole Wan 2.2 I2V-A14B expert.
    """
    check_slot(facts, Slot.HIGH)
    if facts.shape is None:
        raise CheckpointError(f"{facts.name} is not a whole {WHAT}: a tensor that gives its size is missing. Fetch it "
                              "again, or choose another.")
    sizes = asdict(facts.shape)
    return {"num_attention_heads": sizes.pop("dim") // HEAD_DIM, "attention_head_dim": HEAD_DIM, **sizes}


def _rename_to_diffusers(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Return the weights under diffusers' names, from the original names or diffusers' own."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return weights if "proj_out.weight" in weights else convert_wan_transformer_to_diffusers(weights)


def _empty(config: dict[str, int | bool]) -> WanTransformer3DModel:
    """Return the transformer on the meta device, without weights."""
    import torch
    from diffusers import WanTransformer3DModel
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    with torch.device("meta"):
        model = WanTransformer3DModel(**config)
    # The RoPE tables are in no file, so they need real memory.
    model.rope = WanRotaryPosEmbed(model.config.attention_head_dim, model.config.patch_size,
                                   model.config.rope_max_seq_len)
    return model.eval().requires_grad_(False)


def _fill(model: WanTransformer3DModel, weights: dict[str, Weight], compute: torch.dtype,
          linear: Callable[[torch.dtype], Callable[..., HostLinear]]) -> None:
    """Assign the weights to the model.

    Linear layers, 99 % of the weights, are replaced by the host's and keep their weights as stored. The rest is cast to
    `compute`, or to float32 where diffusers wants that.
    """
    import torch

    def exact(name: str) -> bool:
        return any(part in name for part in model._keep_in_fp32_modules)

    layers = linear_names(model, TIME_EMBEDDER)
    rest = {key: dequantise(weight, torch.float32 if exact(key) else compute)
            for key, weight in weights.items() if key.rpartition(".")[0] not in set(layers)}
    model.load_state_dict(rest, assign=True, strict=False)
    plain, in_float32 = linear(compute), linear(torch.float32)
    for name in layers:
        replace_linear(model, name, weights, in_float32 if exact(name) else plain)


def _latent_rgb(metadata: dict[str, str], channels: int) -> tuple[list[list[float]], list[float]] | None:
    """Return the preview colours in the file's metadata; None when there are none, or none that can be used."""
    with suppress(KeyError, ValueError, TypeError, RecursionError):
        factors, bias = json.loads(metadata["latent_rgb"])
        if np.shape(factors) == (channels, 3) and np.shape(bias) == (3,):
            return np.asarray(factors, float).tolist(), np.asarray(bias, float).tolist()
    return None
