"""Detect which model weights are of, from the names and shapes of their tensors.

Wan models: comfy/model_detection.py of ComfyUI 0.30 ("Wan 2.1"), whose marks the table VARIANTS repeats; diffusers'
names: scripts/convert_wan_to_diffusers.py of github.com/huggingface/diffusers. LoRAs: the file endings of
ComfyUI's comfy/lora.py and comfy/weight_adapter/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from .kinds import I2V_IN_CHANNELS, Detected, KeyLayout, ModelKind, Shapes, TransformerShape

PREFIX = "model.diffusion_model."
VARIANTS = {
    "vace_patch_embedding": ModelKind.VACE,
    "vace_blocks": ModelKind.VACE,
    "control_adapter": ModelKind.FUN_CAMERA,
    "casual_audio_encoder": ModelKind.S2V,
    "audio_proj": ModelKind.HUMO,
    "face_adapter": ModelKind.ANIMATE,
    "motion_encoder": ModelKind.ANIMATE,
    "patch_embedding_mask": ModelKind.SCAIL,
    "patch_embedding_pose": ModelKind.SCAIL,
    "patch_embedding_global": ModelKind.WANDANCER,
    "ref_conv": ModelKind.FUN_CONTROL,
}
"""Parts that only one variant has; the first match decides."""
PLAIN_PARTS = {"patch_embedding", "text_embedding", "time_embedding", "time_projection", "blocks", "head", "img_emb",
               "condition_embedder", "proj_out", "scale_shift_table", "scaled_fp8", "comfy_attention"}
IMAGE_MARKS = re.compile(r"(?:^|\.)(?:img_emb|image_embedder|k_img|add_k_proj)\.", re.MULTILINE)
LORA_MARKS = re.compile(
    r"[._](lora_(up|down|mid|A|B)|lora\.(up|down)|lora_linear_layer|lokr_[wt][12]|hada_[wt][12]|oft_blocks"
    r"|dora_scale)([._]|$)|\.(diff|diff_b|set_weight|reshape_weight|w_norm|b_norm|[ab][12]\.weight)$", re.MULTILINE)
"""Both patterns search all names of a file at once, one a line: a loader's list may go through hundreds of files."""
VAE_PREFIXES = ("model.", "vae.", "first_stage_model.")
"""Prefixes of all names in some VAE files: `model.` in DiffSynth-Studio and WanVideoWrapper
(diffsynth/models/wan_video_vae.py), the others in ComfyUI's checkpoints of several models."""
DIFFUSERS_VAE_MARKS = {"decoder.norm_out.gamma", "encoder.conv_in.weight"}
ODD_VAE = {
    KeyLayout.NATIVE: ("decoder.head.2.weight", "decoder.head.0.gamma", "encoder.conv1.weight"),
    KeyLayout.DIFFUSERS: ("decoder.conv_out.weight", "decoder.norm_out.gamma", "encoder.conv_in.weight"),
}
"""The tensors that show a VAE's output channels, and the widths of its decoder and encoder."""
DIFFUSERS_MARK = "condition_embedder.time_proj.weight"
NAMES = {
    KeyLayout.NATIVE: ("blocks.0.ffn.0.weight", "text_embedding.0.weight", "time_embedding.0.weight",
                       "head.head.weight", "blocks.0.norm3.weight"),
    KeyLayout.DIFFUSERS: ("blocks.0.ffn.net.0.proj.weight", "condition_embedder.text_embedder.linear_1.weight",
                          "condition_embedder.time_embedder.linear_1.weight", "proj_out.weight",
                          "blocks.0.norm2.weight"),
}
"""The tensors whose shapes give the sizes: feed-forward, text, time, output, and the norm before cross-attention."""


def detect(shapes: Shapes) -> Detected:
    """Return the model that these tensors are of; ModelKind.UNKNOWN for one that has nothing to do with Wan.

    Shapes are in torch's order. An incomplete file is recognised by the tensors that it has.
    """
    if LORA_MARKS.search("\n".join(shapes)):
        return Detected(ModelKind.LORA)
    for detector in (_wan, _vae, _text):
        detected = detector(shapes)
        if detected is not None:
            return detected
    return Detected(ModelKind.UNKNOWN)


def _wan(shapes: Shapes) -> Detected | None:
    """Detect a Wan transformer and its variant; None for anything else."""
    prefixed = PREFIX + "patch_embedding.weight" in shapes
    bare = ({name.removeprefix(PREFIX): shape for name, shape in shapes.items() if name.startswith(PREFIX)}
            if prefixed else shapes)
    besides = tuple(sorted({name.partition(".")[0] for name in shapes if not name.startswith(PREFIX)} - PLAIN_PARTS))
    besides = besides if prefixed else ()
    ends = ("head.modulation", "head.head.weight", "proj_out.weight")
    if len(bare.get("patch_embedding.weight", ())) != 5 or not any(name in bare for name in ends):
        return None
    diffusers = DIFFUSERS_MARK in bare or "proj_out.weight" in bare
    shape = _transformer_shape(bare, KeyLayout.DIFFUSERS if diffusers else KeyLayout.NATIVE)
    layout = KeyLayout.DIFFUSERS if diffusers else KeyLayout.PREFIXED if prefixed else KeyLayout.NATIVE
    parts = {name.partition(".")[0] for name in bare}
    odd = min(parts - PLAIN_PARTS, default=None)
    variant = next((kind for part, kind in VARIANTS.items() if part in parts), None)
    if variant is not None:
        return Detected(variant, layout, shape, odd, besides)
    in_channels = bare["patch_embedding.weight"][1]
    out_channels = 16 if shape is None else shape.out_channels
    if IMAGE_MARKS.search("\n".join(bare)):
        kind = {36: ModelKind.WAN21_I2V, 48: ModelKind.FUN_CONTROL}.get(in_channels, ModelKind.OTHER_WAN)
    elif out_channels == 48:
        kind = ModelKind.TI2V_5B
    else:
        kind = {16: ModelKind.T2V, I2V_IN_CHANNELS: ModelKind.WAN22_I2V_EXPERT, 48: ModelKind.TI2V_5B,
                52: ModelKind.FUN_CONTROL}.get(in_channels, ModelKind.OTHER_WAN)
    if kind is ModelKind.WAN22_I2V_EXPERT and (odd or out_channels != 16):
        kind = ModelKind.OTHER_WAN
    return Detected(kind, layout, shape, odd, besides)


def _transformer_shape(shapes: Shapes, layout: KeyLayout) -> TransformerShape | None:
    """Return the sizes; None when one of the tensors is missing, empty or of another number of dimensions."""
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


def count_blocks(names: Collection[str], before: str) -> int:
    """Return the number of blocks: one more than the highest number that follows `before`."""
    found = (name[len(before):].partition(".")[0] for name in names if name.startswith(before))
    return max((int(number) for number in found if number.isdecimal()), default=-1) + 1


def _vae(shapes: Shapes) -> Detected | None:
    """Detect a Wan VAE: wan/modules/vae2_1.py or vae2_2.py of github.com/Wan-Video/Wan2.2, or AutoencoderKLWan."""
    prefix = vae_prefix(shapes)
    shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items()} if prefix else shapes
    if "decoder.head.0.gamma" in shapes and "encoder.conv1.weight" in shapes:
        channels, layout = next(iter(shapes.get("conv2.weight") or (16,))), KeyLayout.NATIVE
    elif len(shapes.get("post_quant_conv.weight", ())) == 5 and shapes.keys() >= DIFFUSERS_VAE_MARKS:
        channels, layout = shapes["post_quant_conv.weight"][0], KeyLayout.DIFFUSERS
    else:
        return None
    odd = _odd_vae(shapes, layout)
    if channels == 16 and odd:
        return Detected(ModelKind.VAE_OTHER, layout, odd_part=odd)
    kind = {16: ModelKind.VAE_WAN21, 48: ModelKind.VAE_WAN22}.get(channels)
    return Detected(kind, layout) if kind else None


def _odd_vae(shapes: Shapes, layout: KeyLayout) -> str | None:
    """Return what sets a VAE apart from Wan 2.1's, as those that also upscale, or a light decoder; None for nothing."""
    out, wide, first = ODD_VAE[layout]
    colours = next(iter(shapes.get(out, (3,))))
    if colours != 3:
        return f"{colours} output channels, not 3"
    widths = [next(iter(shapes.get(name, (0,)))) for name in (first, wide)]
    return f"an encoder {widths[0]} wide, a decoder {widths[1]}" if 0 not in widths and len(set(widths)) > 1 else None


def vae_prefix(names: Collection[str]) -> str:
    """Return the prefix of all names in a VAE file; an empty string for most."""
    return next((prefix for prefix in VAE_PREFIXES if all(name.startswith(prefix) for name in names)), "")


def _text(shapes: Shapes) -> Detected | None:
    """Detect UMT5, which has position biases in every block, or T5, in the first alone; GGUF has llama.cpp's names."""
    for pattern, layout in (("encoder.block.{}.layer.0.SelfAttention.relative_attention_bias.weight", KeyLayout.NATIVE),
                            ("blocks.{}.pos_embedding.embedding.weight", KeyLayout.OFFICIAL),
                            ("enc.blk.{}.attn_rel_b.weight", KeyLayout.GGUF)):
        if pattern.format(0) in shapes:
            blocks = count_blocks(shapes, pattern.partition("{}")[0])
            everywhere = blocks == 1 or pattern.format(1) in shapes
            return Detected(ModelKind.UMT5 if everywhere else ModelKind.T5, layout)
    return None
