"""A Wan 2.2 I2V-A14B expert: the single file Comfy-Org ships, in fp16, bf16 or fp32 -> WanTransformer3DModel.

Names of the file: wan/modules/model.py of github.com/Wan-Video/Wan2.2, bare or behind `model.diffusion_model.`.
The configuration follows from the shapes; heads are 128 wide in every Wan model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import CheckpointError, check_keys, load_exactly
from .kinds import Layout
from .probe import Found, probe
from .safetensors_file import read_tensors
from .slots import Slot, check_slot

if TYPE_CHECKING:
    import torch
    from diffusers import WanTransformer3DModel

WHAT = "Wan 2.2 I2V-A14B expert"
HEAD_DIM = 128
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


def _check_readable(found: Found) -> None:
    odd = sorted(set(found.header.dtypes.values()) - DTYPES)
    if odd or found.layout not in (Layout.NATIVE, Layout.PREFIXED) or len(found.files) > 1:
        raise CheckpointError(f"{found.name} holds {', '.join(odd) or found.layout.value} weights; this loader reads "
                              "fp16, bf16 and fp32 files.")


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
    found = probe(path)
    config = transformer_config(found)
    _check_readable(found)
    header = found.header
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    tensors = convert_wan_transformer_to_diffusers(read_tensors(found.files[0]))
    model = _build(config, host.linear)
    check_keys(path.name, WHAT, model.state_dict(), tensors)
    stored = tensors["blocks.0.ffn.net.0.proj.weight"].dtype
    compute = host.compute_dtype(stored)
    cast = {key: value.to(_dtype_of(key, model, stored, compute)) for key, value in tensors.items()}
    load_exactly(path.name, WHAT, model, cast)
    rgb = json.loads(header.metadata["latent_rgb"]) if "latent_rgb" in header.metadata else None
    return Expert(path.name, host.adopt(model), compute, config["text_dim"], rgb)
