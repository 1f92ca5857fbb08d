"""Under which names a LoRA file may speak of a module of WanTransformer3DModel."""

from __future__ import annotations

from collections.abc import Iterable

ORIGINAL_NAMES = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("attn1.", "self_attn."), ("attn2.", "cross_attn."), ("norm2.", "norm3."),
    ("to_out.0.", "o."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."),
    ("ffn.net.0.proj", "ffn.0"), ("ffn.net.2", "ffn.2"), ("proj_out", "head.head"),
)
"""Parts of diffusers' parameter names -> those of wan/modules/model.py."""


def original_name(key: str) -> str:
    """The name in the original Wan files of one of diffusers' parameters."""
    if key == "scale_shift_table":
        return "head.modulation"
    key = key.replace("scale_shift_table", "modulation")
    for ours, theirs in ORIGINAL_NAMES:
        key = key.replace(ours, theirs)
    return key


def lora_names(parameters: Iterable[str]) -> dict[str, str]:
    """Name of a module in a LoRA file -> the parameter it changes, for every way of naming that is in use.

    `diffusion_model.`: ComfyUI, lightx2v, diffusion-pipe, ai-toolkit. `transformer.`, `transformer_2.`: diffusers.
    `base_model.model.`: PEFT. `lora_unet_`, `lora_unet__`, `lycoris_`: kohya, musubi, VideoX-Fun and LyCORIS, with
    underscores for dots. Or none of these. Behind each stands the original name or diffusers'. Biases have no names
    of their own: a file speaks of a module's bias as `diff_b`, behind the module's name.
    """
    names: dict[str, str] = {}
    for parameter in parameters:
        if parameter.endswith(".bias"):
            continue
        for key in (original_name(parameter), parameter):
            module = key.removesuffix(".weight")
            flat = module.replace(".", "_")
            for name in (f"diffusion_model.{module}", f"transformer.{module}", f"transformer_2.{module}",
                         f"base_model.model.{module}", f"base_model.model.diffusion_model.{module}", module,
                         f"lora_unet_{flat}", f"lora_unet__{flat}", f"lycoris_{flat}"):
                names[name] = parameter
    return names
