"""The Wan 2.1 VAE, which Wan 2.2 A14B uses: the single file Comfy-Org ships -> AutoencoderKLWan.

Names of the file: wan/modules/vae2_1.py of github.com/Wan-Video/Wan2.2. The base width follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import load_exactly
from .probe import probe
from .safetensors_file import read_tensors
from .slots import Slot, check_slot

if TYPE_CHECKING:
    import torch

WHAT = "Wan 2.1 VAE"


def load_vae(path: Path, host: Host) -> tuple[Resident, torch.dtype]:
    """AutoencoderKLWan and the dtype to run it in. Raises CheckpointError when the file is not that VAE."""
    found = probe(path)
    check_slot(found, Slot.VAE)
    shapes = found.header.shapes
    import torch
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    tensors = convert_wan_vae_to_diffusers(read_tensors(path))
    dtype = host.compute_dtype(next(iter(tensors.values())).dtype)
    with torch.device("meta"):
        vae = AutoencoderKLWan(base_dim=shapes["decoder.head.0.gamma"][0])
    load_exactly(path.name, WHAT, vae, {key: value.to(dtype) for key, value in tensors.items()})
    return host.adopt(vae.eval().requires_grad_(False)), dtype
