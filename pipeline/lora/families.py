"""Which other model a LoRA was made for, told from the names of the modules it changes; and files that are no LoRA.

Names are those of each model's code in diffusers (src/diffusers/models/) and ComfyUI (comfy/ldm/), as LoRAs carry them
(src/diffusers/loaders/lora_conversion_utils.py; src/musubi_tuner/convert_lora.py of github.com/kohya-ss/musubi-tuner).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from ..checkpoint.header import Header
from ..checkpoint.kinds import Kind
from ..checkpoint.slots import CALLED
from ..checkpoint.tell import tell

ENOUGH = 4_000
"""Names that are looked at. LoRAs have fewer modules."""
FAMILIES = tuple((family, re.compile(pattern, re.MULTILINE)) for family, pattern in (
    ("AnimateDiff", r"motion_modules_"),
    ("SDXL", r"lora_te2_|(?:input|output)_blocks_\d+_1_transformer_blocks_[1-9]"
             r"|middle_block_1_transformer_blocks_[1-9]|attentions_\d_transformer_blocks_[1-9]"),
    ("Stable Diffusion 1 or 2", r"(?:input|output)_blocks_\d+_|(?:down|up)_blocks_\d_|mid(?:dle)?_block_"
                                r"|lora_te_text_"),
    ("HunyuanVideo", r"token_refiner|img_mlp_fc1|img_mod_linear|single_(?:transformer_)?blocks_3[89]_"
                     r"|double_blocks_19_"),
    ("HiDream", r"(?:double|single)_stream_blocks_"),
    ("Flux.2", r"(?:double|single)_stream_modulation|to_qkv_mlp_proj"),
    ("Flux", r"single_transformer_blocks_|(?:img|txt)_mlp_[02]$|(?:img|txt)_mod_lin$|lora_te1_text_model"),
    ("Flux or HunyuanVideo", r"(?:double|single)_blocks_\d"),
    ("Qwen-Image", r"transformer_blocks_\d+_(?:img|txt)_m(?:lp|od)|transformer_blocks_[345]\d_attn_"),
    ("Stable Diffusion 3", r"joint_blocks_|transformer_blocks_\d+_attn_add_q_proj"),
    ("Kandinsky 5", r"(?:visual|text)_transformer_blocks_"),
    ("LTX-Video", r"patchify_proj|transformer_blocks_\d+_attn2_to_|transformer_blocks_\d+_audio_"),
    ("CogVideoX", r"transformer_blocks_\d+_attn1_to_"),
    ("Z-Image or Lumina", r"layers_\d+_(?:attention|feed_forward)_|(?:noise|context)_refiner_"),
    ("Mochi", r"blocks_\d+_attn_(?:qkv|proj)_[xy]"),
    ("Cosmos", r"blocks_\d+_(?:self|cross)_attn_(?:[qkv]|output)_proj|blocks_block\d"),
    ("a language model", r"layers_\d+_(?:self_attn_[qkvo]_proj|mlp_(?:gate|up|down)_proj)"),
    ("a text encoder", r"text_model_encoder|text_encoder|^lora_te"),
))
"""Most telling first."""


def family_of(modules: Iterable[str]) -> str | None:
    """What to call the model whose modules these are; None when it cannot be told."""
    names = "\n".join(islice(modules, ENOUGH)).replace(".", "_")
    return next((family for family, pattern in FAMILIES if pattern.search(names)), None)


OTHER_FILES = tuple((called, re.compile(pattern, re.MULTILINE)) for called, pattern in (
    ("a textual-inversion embedding", r"^(?:emb_params|string_to_param|clip_[lg]|<[^>]{1,80}>)$"),
    ("a ControlNet", r"^(?:control_model\.|controlnet_|input_hint_block)"),
    ("a whole checkpoint", r"^(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\."),
    ("a whole model, or a part of one", r"^(?:(?:double|single|transformer|joint|down)_)?blocks\.\d"),
    ("a VAE", r"^(?:encoder|decoder)\.(?:conv_in|conv1|down|up|mid)"),
    ("a text encoder", r"text_model\.encoder|^(?:model\.)?layers\.\d|^encoder\.(?:block|layer)s?\."),
    ("an IP-Adapter", r"^(?:image_proj|ip_adapter)"),
))


def what_else(header: Header) -> str:
    """What to call a file that is no LoRA."""
    names = "\n".join(islice(header.shapes, ENOUGH))
    kind = tell(header.shapes).kind
    if kind is Kind.LORA:
        return "a LoRA without its patches"
    return CALLED.get(kind) or next((what for what, pattern in OTHER_FILES if pattern.search(names)), "something else")
