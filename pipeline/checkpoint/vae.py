"""The Wan 2.1 VAE, which Wan 2.2 A14B uses -> AutoencoderKLWan.

Names in files: those of the official `Wan2.1_VAE.pth`, wan/modules/vae2_1.py of github.com/Wan-Video/Wan2.2, which
Comfy-Org's and Kijai's safetensors keep, or diffusers' own; either may have a prefix (tell.VAE_PREFIXES). The base
width follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import load_exactly
from .probe import probe
from .quantised import dequantise
from .read import read_weights
from .slots import Slot, check_slot
from .tell import vae_prefix

if TYPE_CHECKING:
    import torch

WHAT = "Wan 2.1 VAE"


def _diffusers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under diffusers' names, whichever they have."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    prefix = vae_prefix(weights)
    weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights if "encoder.conv_in.weight" in weights else convert_wan_vae_to_diffusers(weights)


def load_vae(path: Path, host: Host) -> tuple[Resident, torch.dtype]:
    """AutoencoderKLWan and the dtype to run it in, from a file or a diffusers folder.

    Raises CheckpointError when it is not that VAE.
    """
    check_slot(probe(path), Slot.VAE)
    import torch
    from diffusers import AutoencoderKLWan

    weights = _diffusers_names(read_weights(path)[0])
    dtype = host.compute_dtype(weights["encoder.conv_in.weight"].dtype)
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=weights["decoder.norm_out.gamma"].shape[0])
    load_exactly(path.name, WHAT, vae, {key: dequantise(value, dtype) for key, value in weights.items()})
    return host.adopt(vae.eval().requires_grad_(False)), dtype
