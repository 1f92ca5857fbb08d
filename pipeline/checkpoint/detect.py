"""Which model some weights are, told from the names and shapes of their tensors.

Wan models: comfy/model_detection.py of ComfyUI 0.30 ("Wan 2.1"), whose marks the table VARIANTS repeats; names of
diffusers' layout: scripts/convert_wan_to_diffusers.py of github.com/huggingface/diffusers. LoRAs: the file endings of
ComfyUI's comfy/lora.py and comfy/weight_adapter/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection

from .kinds import I2V_IN_CHANNELS, Kind, Layout, Shapes, Told, TransformerShape

PREFIX = "model.diffusion_model."
VARIANTS = {
    "vace_patch_embedding": Kind.VACE,
    "vace_blocks": Kind.VACE,
    "control_adapter": Kind.FUN_CAMERA,
    "casual_audio_encoder": Kind.S2V,
    "audio_proj": Kind.HUMO,
    "face_adapter": Kind.ANIMATE,
    "motion_encoder": Kind.ANIMATE,
    "patch_embedding_mask": Kind.SCAIL,
    "patch_embedding_pose": Kind.SCAIL,
    "patch_embedding_global": Kind.WANDANCER,
    "ref_conv": Kind.FUN_CONTROL,
}
"""Parts that only one variant has, most telling first."""
PLAIN_PARTS = {"patch_embedding", "text_embedding", "time_embedding", "time_projection", "blocks", "head", "img_emb",
               "condition_embedder", "proj_out", "scale_shift_table", "scaled_fp8"}
IMAGE_MARKS = re.compile(r"(?:^|\.)(?:img_emb|image_embedder|k_img|add_k_proj)\.", re.MULTILINE)
LORA_MARKS = re.compile(
    r"[._](lora_(up|down|mid|A|B)|lora\.(up|down)|lora_linear_layer|lokr_[wt][12]|hada_[wt][12]|oft_blocks"
    r"|dora_scale)([._]|$)|\.(diff|diff_b|set_weight|reshape_weight|w_norm|b_norm|[ab][12]\.weight)$", re.MULTILINE)
"""Both search all names of a file at once, one a line: a loader's list may look through hundreds of files."""
VAE_PREFIXES = ("model.", "vae.", "first_stage_model.")
"""Before every name of some VAE files: DiffSynth-Studio's and WanVideoWrapper's module keeps its network in `model`
(diffsynth/models/wan_video_vae.py), ComfyUI's checkpoints of several parts have the others."""
DIFFUSERS_VAE_MARKS = {"decoder.norm_out.gamma", "encoder.conv_in.weight"}
DIFFUSERS_MARK = "condition_embedder.time_proj.weight"
NAMES = {
    Layout.NATIVE: ("blocks.0.ffn.0.weight", "text_embedding.0.weight", "time_embedding.0.weight",
                    "head.head.weight", "blocks.0.norm3.weight"),
    Layout.DIFFUSERS: ("blocks.0.ffn.net.0.proj.weight", "condition_embedder.text_embedder.linear_1.weight",
                       "condition_embedder.time_embedder.linear_1.weight", "proj_out.weight", "blocks.0.norm2.weight"),
}
"""The tensors that tell the sizes: feed-forward, text, time, output and the norm before cross-attention."""


def count_blocks(names: Collection[str], before: str) -> int:
    """How many numbered blocks there are: one more than the highest number behind `before`."""
    found = (name[len(before):].partition(".")[0] for name in names if name.startswith(before))
    return max((int(number) for number in found if number.isdecimal()), default=-1) + 1


def _transformer_shape(shapes: Shapes, layout: Layout) -> TransformerShape | None:
    """The sizes, or None when a tensor that tells one is missing, empty or of another number of dimensions."""
    feed_forward, text, time, output, norm = NAMES[layout]
    dim, in_channels, *patch = shapes["patch_embedding.weight"]
    if 0 in patch or any(len(shapes.get(name, ())) != 2 for name in (feed_forward, text, time, output)):
        return None
    return TransformerShape(
        dim=dim,
        ffn_dim=shapes[feed_forward][0],
        num_layers=count_blocks(shapes, "blocks."),
        in_channels=in_channels,
        out_channels=shapes[output][0] // math.prod(patch),
        text_dim=shapes[text][1],
        freq_dim=shapes[time][1],
        cross_attn_norm=norm in shapes,
    )


def _wan(shapes: Shapes) -> Told | None:
    prefixed = PREFIX + "patch_embedding.weight" in shapes
    bare = {name.removeprefix(PREFIX): shape for name, shape in shapes.items()} if prefixed else shapes
    ends = ("head.modulation", "head.head.weight", "proj_out.weight")
    if len(bare.get("patch_embedding.weight", ())) != 5 or not any(name in bare for name in ends):
        return None
    diffusers = DIFFUSERS_MARK in bare or "proj_out.weight" in bare
    shape = _transformer_shape(bare, Layout.DIFFUSERS if diffusers else Layout.NATIVE)
    layout = Layout.DIFFUSERS if diffusers else Layout.PREFIXED if prefixed else Layout.NATIVE
    parts = {name.partition(".")[0] for name in bare}
    odd = min(parts - PLAIN_PARTS, default=None)
    variant = next((kind for part, kind in VARIANTS.items() if part in parts), None)
    if variant is not None:
        return Told(variant, layout, shape, odd)
    in_channels = bare["patch_embedding.weight"][1]
    out_channels = 16 if shape is None else shape.out_channels
    if IMAGE_MARKS.search("\n".join(bare)):
        kind = {36: Kind.WAN21_I2V, 48: Kind.FUN_CONTROL}.get(in_channels, Kind.OTHER_WAN)
    elif out_channels == 48:
        kind = Kind.TI2V_5B
    else:
        kind = {16: Kind.T2V, I2V_IN_CHANNELS: Kind.WAN22_I2V_EXPERT, 48: Kind.TI2V_5B, 52: Kind.FUN_CONTROL,
                }.get(in_channels, Kind.OTHER_WAN)
    if kind is Kind.WAN22_I2V_EXPERT and (odd or out_channels != 16):
        kind = Kind.OTHER_WAN
    return Told(kind, layout, shape, odd)


def vae_prefix(names: Collection[str]) -> str:
    """What stands before every name of a VAE file; nothing for most."""
    return next((prefix for prefix in VAE_PREFIXES if all(name.startswith(prefix) for name in names)), "")


def _vae(shapes: Shapes) -> Told | None:
    """The Wan VAEs: wan/modules/vae2_1.py and vae2_2.py of github.com/Wan-Video/Wan2.2, or AutoencoderKLWan."""
    prefix = vae_prefix(shapes)
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()} if prefix else shapes
    if "decoder.head.0.gamma" in shapes and "encoder.conv1.weight" in shapes:
        channels, layout = next(iter(shapes.get("conv2.weight") or (16,))), Layout.NATIVE
    elif len(shapes.get("post_quant_conv.weight", ())) == 5 and shapes.keys() >= DIFFUSERS_VAE_MARKS:
        channels, layout = shapes["post_quant_conv.weight"][0], Layout.DIFFUSERS
    else:
        return None
    kind = {16: Kind.VAE_WAN21, 48: Kind.VAE_WAN22}.get(channels)
    return Told(kind, layout) if kind else None


def _text(shapes: Shapes) -> Told | None:
    """UMT5 has position biases in every block, T5 in the first alone. GGUF files use llama.cpp's names."""
    for pattern, layout in (("encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight", Layout.NATIVE),
                            ("blocks.{}.pos_embedding.embedding.weight", Layout.OFFICIAL),
                            ("enc.blk.{}.attn_rel_b.weight", Layout.GGUF)):
        if pattern.format(0) in shapes:
            blocks = count_blocks(shapes, pattern.partition("{}")[0])
            everywhere = blocks == 1 or pattern.format(1) in shapes
            return Told(Kind.UMT5 if everywhere else Kind.T5, layout)
    return None


TELLERS: tuple[Callable[[Shapes], Told | None], ...] = (_wan, _vae, _text)


def tell(shapes: Shapes) -> Told:
    """Which model these tensors are; Kind.UNKNOWN when they are none of those that have to do with Wan.

    Shapes are in torch's order. A file whose tensors are not all there is still told by those that are.
    """
    if LORA_MARKS.search("\n".join(shapes)):
        return Told(Kind.LORA)
    for teller in TELLERS:
        told = teller(shapes)
        if told is not None:
            return told
    return Told(Kind.UNKNOWN)
