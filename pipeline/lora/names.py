"""Parse the names of tensors in LoRA files for Wan: the module that each is for, and the part of its patch.

Prefixes by trainer: `diffusion_model.` (diffusion-pipe, ai-toolkit, lightx2v), `transformer.` and `transformer_2.`
(diffusers, src/diffusers/loaders/lora_pipeline.py `WanLoraLoaderMixin`), `base_model.model.` (PEFT), `lora_unet_`
(github.com/kohya-ss/musubi-tuner, src/musubi_tuner/networks/lora_wan.py), `lora_unet__` (alibaba-pai's Fun LoRAs:
ComfyUI's comfy/lora_convert.py), `lycoris_` (LyCORIS, in ai-toolkit and SimpleTuner), `pipe.dit.` or nothing
(DiffSynth-Studio), and `transformer_1.`, `transformer_2.` behind another prefix (ai-toolkit, both experts in one file:
extensions_built_in/diffusion_models/wan22/wan22_14b_model.py).

Parts: comfy/lora.py and comfy/weight_adapter/ of ComfyUI 0.30. Modules: wan/modules/model.py of
github.com/Wan-Video/Wan2.2, and diffusers' scripts/convert_wan_to_diffusers.py for the other names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum


class Style(str, Enum):
    """A naming scheme for modules; the value is its name in messages."""

    COMFYUI = "diffusion_model."
    DIFFUSERS = "transformer."
    PEFT = "base_model.model."
    KOHYA = "lora_unet_"
    LYCORIS = "lycoris_"
    DIFFSYNTH = "pipe.dit."
    BARE = "bare names"


PREFIXES: dict[str, tuple[Style | None, str | None]] = {
    "model.diffusion_model.": (Style.COMFYUI, None),
    "diffusion_model.": (Style.COMFYUI, None),
    "base_model.model.": (Style.PEFT, None),
    "transformer_1.": (Style.DIFFUSERS, "high"),
    "transformer_2.": (Style.DIFFUSERS, "low"),
    "transformer.": (Style.DIFFUSERS, None),
    "pipe.dit.": (Style.DIFFSYNTH, None),
    "lora_unet__": (Style.KOHYA, None),
    "lora_unet_": (Style.KOHYA, None),
    "lora_transformer_2_": (Style.KOHYA, "low"),
    "lora_transformer_": (Style.KOHYA, None),
    "lycoris_": (Style.LYCORIS, None),
    "transformer_1_": (None, "high"),
    "transformer_2_": (None, "low"),
}
"""Prefix -> style, expert. Prefixes can be stacked: the first gives the style, any of them the expert."""
PREFIX = re.compile("|".join(map(re.escape, PREFIXES)))

ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k",
             "k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
IN_BLOCKS = {
    **{f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in ATTENTION.items() if "img" not in ours},
    **{f"cross_attn.{ours}": f"attn2.{theirs}" for ours, theirs in ATTENTION.items()},
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
    "modulation": "scale_shift_table",
}
OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
}
"""Official names of modules, and of parameters outside modules -> diffusers' names."""


def _by_any_name(table: dict[str, str]) -> dict[str, str]:
    """Return the official name by every name, with underscores for dots as kohya writes them."""
    return {name.replace(".", "_"): ours for ours, theirs in table.items() for name in (ours, theirs)}


BLOCK_NAMES, OUTSIDE_NAMES = _by_any_name(IN_BLOCKS), _by_any_name(OUTSIDE)
BLOCK = re.compile(r"((?:vace_)?blocks)[._]([0-9]{1,4})[._](.+)", re.DOTALL)
IMAGE_PROJECTION = re.compile(r"img_emb\.|\.cross_attn\.(?:k|v|norm_k)_img$")
"""Modules of Wan 2.1 I2V that no 2.2 model has; they encode the first frame for cross-attention."""
PART = re.compile(
    r"""(?:
    [._]lora[._](?P<kohya>up|down|mid)(?:\.weight)?
    | [._]lora[._](?P<lora_alpha>alpha)
    | \.lora_(?P<peft>[AB])(?:\.(?!weight$|bias$)[\w-]{1,60})?(?:\.weight)?
    | \.lora_B(?:\.[\w-]{1,60})?(?P<bias>\.bias)
    | \.lora_linear_layer\.(?P<linear>up|down)\.weight
    | \.lora_magnitude_vector(?:\.[\w-]{1,60})?(?:\.weight)?(?P<magnitude>)
    | \.diff_(?P<modulation>m)
    | \.(?P<same>alpha|dora_scale|diff|diff_b|set_weight|reshape_weight|w_norm|b_norm|lokr_w[12](?:_[ab])?|lokr_t2
                |hada_w[12]_[ab]|hada_t[12]|oft_blocks|rescale|[ab][12]\.weight)
    )$""", re.VERBOSE)
FOREIGN = re.compile(
    r"""\.(?P<part>(?:adamss|beft|boft|bone|c3a|deft|delora|fourierft|frod|glora|gralora|hira|hra|ia3|lily|ln_tuning|miss
    |oft|osf|peanut|psoft|pvera_lambda|randlora|road|shira|supertuning|tinylora|unilora|vblora|vera_lambda|waveft)_\w{1,40}
    |lora_\w{1,40}|on_input|scalar|bm|lokr_t1|lambda_layer|[pq]_layer)(?:\.[\w-]{1,60}){0,2}$""", re.VERBOSE)
"""Parts of adapters that are not applied: PEFT's other types (src/peft/tuners/*/model.py, `prefix`), such as AdaLoRA's
lora_E, LyCORIS' (IA)3 (`on_input`), T-LoRA (`p_layer`) and its trained scalar."""
MAX_PART = 180
"""Longest part in characters, with an adapter's name in it."""


@dataclass(frozen=True, slots=True)
class LoraKey:
    """The parsed name of one tensor.

    `expert` is "high", "low" or None where the name leaves it open. `module` is the official code's name, such as
    `blocks.3.self_attn.q`; `known` is True when a Wan model has one of that name. `part` is in ComfyUI's spelling, such
    as `lora_up.weight` or `alpha`, so that `module.part` under ComfyUI's key map means the same patch.
    """

    style: Style
    expert: str | None
    module: str
    known: bool
    part: str
    name: str = field(default="", compare=False)
    """The module's name as the file has it, prefix and all."""


def _part(found: re.Match[str]) -> str:
    if found["peft"]:
        return {"A": "lora_down.weight", "B": "lora_up.weight"}[found["peft"]]
    if found["bias"]:
        return "lora_up.bias"
    if found["lora_alpha"]:
        return "alpha"
    if found["magnitude"] is not None:
        return "dora_scale"
    return found["same"] or f"lora_{found['kohya'] or found['linear']}.weight"


def _module(name: str) -> tuple[str, bool]:
    """Return a module's official name, and True when it is one of Wan's; another name is returned as it is."""
    block = BLOCK.fullmatch(name)
    if block is not None:
        ours = BLOCK_NAMES.get(block[3].replace(".", "_"))
        return f"{block[1]}.{int(block[2])}.{ours or block[3]}", ours is not None
    ours = OUTSIDE_NAMES.get(name.replace(".", "_"))
    return ours or name, ours is not None


def _split(name: str) -> LoraKey | None:
    found = PART.search(name, max(len(name) - MAX_PART, 0))
    if found is None:
        return None
    stem, part = name[:found.start()], ""
    whole = stem
    if found["modulation"]:  # `blocks.0.diff_m` changes `blocks.0.modulation` (WanVideoWrapper's LoRA loader)
        stem, part = f"{stem}.modulation", "diff"
    style: Style | None = None
    expert: str | None = None
    while prefix := PREFIX.match(stem):
        stem = stem[prefix.end():]
        style, expert = style or PREFIXES[prefix[0]][0], expert or PREFIXES[prefix[0]][1]
    module, known = _module(stem)
    return LoraKey(style or Style.BARE, expert, module, known, part or _part(found), whole)


def foreign_part(name: str) -> str | None:
    """Return the part, such as `oft_R`, of a Wan module's tensor that is of an adapter not applied here."""
    found = FOREIGN.search(name, max(len(name) - MAX_PART, 0))
    if found is None or PART.search(name, max(len(name) - MAX_PART, 0)):
        return None
    return found["part"] if _module(without_prefix(name[:found.start()]))[1] else None


def without_prefix(module: str) -> str:
    """Return a module's name in a file without what stands before the model's own names."""
    while prefix := PREFIX.match(module):
        module = module[prefix.end():]
    return module


def diffusers_name(module: str) -> str:
    """Return diffusers' name of a module by its official one; other names as they are."""
    block = BLOCK.fullmatch(module)
    if block is None:
        return OUTSIDE.get(module, module)
    return f"{block[1]}.{block[2]}.{IN_BLOCKS.get(block[3], block[3])}"


def split(names: Iterable[str]) -> dict[str, LoraKey]:
    """Parse the names of tensors; those that are no part of a LoRA are left out.

    `transformer.` means the high-noise expert when `transformer_2.` is there too, as in diffusers' pipelines; alone it
    leaves the expert open.
    """
    keys = {name: key for name in names if (key := _split(name)) is not None}
    if any(key.expert == "low" and key.style is Style.DIFFUSERS for key in keys.values()):
        keys = {name: replace(key, expert="high") if key.expert is None and key.style is Style.DIFFUSERS else key
                for name, key in keys.items()}
    return keys
