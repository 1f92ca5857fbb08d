"""Files of Wan 2.2 I2V-A14B at full size: the names, dtypes and shapes of the real ones, and holes in place of numbers.

A hole takes no room on the disk (sparse files, on Linux and most file systems), and reads as zeros.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from pipeline.checkpoint.header import MIN_BYTES
from pipeline.checkpoint.mmap import DTYPES
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.lora.apply import original_name
from pipeline.models import load as bundled

EXPERT = {"num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "in_channels": 36,
          "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824, "cross_attn_norm": True}
"""WanTransformer3DModel's configuration of I2V-A14B (diffusers, scripts/convert_wan_to_diffusers.py)."""
UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "num_heads": 64, "d_kv": 64, "d_ff": 10240, "num_layers": 24}
"""UMT5Config of google/umt5-xxl."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Entries = dict[str, tuple[torch.dtype, tuple[int, ...]]]
"""Name of a tensor -> its dtype and shape."""


def write(path: Path, entries: Entries, contents: Mapping[str, bytes] | None = None) -> Path:
    """Write a .safetensors file with these tensors; those without contents are holes."""
    contents = contents or {}
    header, end = {}, 0
    for name in sorted(entries, key=lambda name: name not in contents):  # those with contents first
        dtype, shape = entries[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(MIN_BYTES, "little") + text)
        file.writelines(contents[name] for name in header if name in contents)
        file.truncate(MIN_BYTES + len(text) + end)
    return path


def expert_shapes(**sizes: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an expert's weights by their original names. sizes: what differs from EXPERT."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model = WanTransformer3DModel(**{**EXPERT, **sizes})
    return {original_name(name): tuple(value.shape) for name, value in model.named_parameters()}


def is_linear_of_block(name: str, shape: tuple[int, ...]) -> bool:
    """Return True for the weights that quantised files pack and that LoRAs change, by their original names."""
    return name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2


def write_expert(path: Path, dtype: torch.dtype, **sizes: int) -> Path:
    """Write an expert, 28.6 GB; of a dtype of one byte as Comfy-Org's fp8_scaled, 14.3 GB.

    sizes: see `expert_shapes`.
    """
    shapes = expert_shapes(**sizes)
    if dtype.itemsize > 1:
        return write(path, {name: (dtype, shape) for name, shape in shapes.items()})
    entries: Entries = {"scaled_fp8": (dtype, (0,))}
    for name, shape in shapes.items():
        packed = is_linear_of_block(name, shape)
        entries[name] = (dtype if packed else torch.float16, shape)
        if packed:
            entries[f"{name.removesuffix('weight')}scale_weight"] = (torch.float32, ())
    return write(path, entries)


def write_text_encoder(path: Path, dtype: torch.dtype) -> Path:
    """Write UMT5-XXL, 11.4 GB in float16, with the bundled vocabulary; fp8 as Comfy-Org's fp8_e4m3fn_scaled, 6.7 GB."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**UMT5_XXL))
    pieces = load_file(bundled.DEMO_TEXT_ENCODER)["spiece_model"]
    entries: Entries = {"spiece_model": (torch.uint8, tuple(pieces.shape))}
    for name, value in model.state_dict().items():
        if name == "encoder.embed_tokens.weight":
            continue
        packed = (".SelfAttention." in name and "bias" not in name) or ".DenseReluDense." in name
        entries[name] = (dtype if packed or dtype.itemsize > 1 else torch.float16, tuple(value.shape))
        if packed and dtype.itemsize == 1:
            entries[f"{name.removesuffix('weight')}scale_weight"] = (torch.float32, ())
    if dtype.itemsize == 1:
        entries["scaled_fp8"] = (dtype, (0,))
    return write(path, entries, {"spiece_model": pieces.numpy().tobytes()})


def write_vae(path: Path, dtype: torch.dtype) -> Path:
    """Write the VAE, 254 MB in two bytes a number, under the official names."""
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    with torch.device("meta"):
        vae = AutoencoderKLWan()
    official = {new: old for old in read_header(bundled.DEMO_VAE).shapes
                for new in convert_wan_vae_to_diffusers({old: torch.zeros(1)})}
    return write(path, {official[name]: (dtype, tuple(value.shape)) for name, value in vae.state_dict().items()})


def write_lora(path: Path, rank: int, **sizes: int) -> Path:
    """Write a LoRA of a rank on every linear layer of the blocks, float16, as ComfyUI and lightx2v name them.

    sizes: see `expert_shapes`.
    """
    entries: Entries = {}
    for name, shape in expert_shapes(**sizes).items():
        if is_linear_of_block(name, shape):
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            entries[f"{module}.lora_up.weight"] = (torch.float16, (shape[0], rank))
            entries[f"{module}.lora_down.weight"] = (torch.float16, (rank, shape[1]))
            entries[f"{module}.alpha"] = (torch.float16, ())
    return write(path, entries)
