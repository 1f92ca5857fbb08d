"""Read a CONDITIONING of ComfyUI's: its text embeddings, or the refusal of what a sampler would leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..request import MAX_PROMPT_TOKENS, RequestError

THE_BRIDGE = ("Use Wan 2.2 Sampler for MODEL (bridge), whose sampling is ComfyUI's own, or connect Encode Prompt "
              "directly.")
PICTURES = ("concat_latent_image", "concat_mask", "concat_image", "concat_mask_index")
"""Options that bring the known frames along, as WanImageToVideo sets them; both samplers have them from first_frame."""
WITHOUT_EFFECT: Mapping[str, Callable[[Any], bool]] = {
    "pooled_output": lambda value: True,  # no Wan model reads it
    "attention_mask": lambda value: True,  # nor this: the encoder has put zeros behind the text already
    "strength": lambda value: value == 1.0,
    "mask_strength": lambda value: True,  # without a mask, which is refused
    "set_area_to_bounds": lambda value: True,  # without an area, which is refused
    "start_percent": lambda value: value <= 0.0,
    "end_percent": lambda value: value >= 1.0,
    "clip_start_percent": lambda value: value <= 0.0,
    "clip_end_percent": lambda value: value >= 1.0,
    "guidance": lambda value: True,  # FluxGuidance's: no Wan model reads it
    "add_dict": lambda value: not value,
}
"""Options that change nothing for Wan 2.2 I2V-A14B, and for which values (comfy/samplers.py, comfy/hooks.py)."""


def text_embeddings(conditioning: list[list[Any]], text_dim: int, which: str) -> torch.Tensor:
    """Return the text embeddings (1, 512, text_dim) of a CONDITIONING, float32 on the CPU, filled up with zeros.

    ComfyUI allows longer padding; the model was trained on 512 with zeros behind the text (wan/modules/model.py).
    Raises RequestError for embeddings of another model, for text beyond 512 tokens, and for every option that would
    change the clip and that this sampler does not read.
    """
    if len(conditioning) != 1:
        raise RequestError(f"The {which} conditioning has {len(conditioning)} parts; this sampler takes one. "
                           f"{THE_BRIDGE}")
    embeddings, options = conditioning[0]
    if embeddings.ndim != 3 or embeddings.shape[0] != 1:
        raise RequestError(f"The {which} text embeddings have the shape {tuple(embeddings.shape)}; one prompt has "
                           f"(1, tokens, {text_dim}). Connect Encode Prompt directly.")
    if embeddings.shape[-1] != text_dim:
        raise RequestError(f"The {which} text embeddings are {embeddings.shape[-1]} wide, the experts read {text_dim}. "
                           "Use the text encoder that belongs to them: the bundled one for the bundled model, "
                           "umt5_xxl for Wan 2.2.")
    if bool((embeddings[:, MAX_PROMPT_TOKENS:] != 0).any()):
        raise RequestError(f"The {which} conditioning has text behind its first {MAX_PROMPT_TOKENS} tokens, such as "
                           "that of Conditioning (Concat), where Wan 2.2 was trained on none; this sampler would leave "
                           f"it out. Write one prompt. {THE_BRIDGE}")
    check_pictures(conditioning, which)
    unread = [name for name, value in options.items()
              if value is not None and not WITHOUT_EFFECT.get(name, lambda value: False)(value)]
    if unread:
        raise RequestError(f"The {which} conditioning brings {', '.join(sorted(unread))}, which this sampler does not "
                           f"read: the clip would be made without. {THE_BRIDGE}")
    kept = embeddings[:, :MAX_PROMPT_TOKENS].float().cpu()  # that of two encoders may be of two dtypes and devices
    return torch.nn.functional.pad(kept, (0, 0, 0, MAX_PROMPT_TOKENS - kept.shape[1]))


def check_pictures(conditioning: list[list[Any]], which: str) -> None:
    """Raise RequestError when a CONDITIONING brings known frames of its own beside those of first_frame."""
    if any(options.get(name) is not None for _, options in conditioning for name in PICTURES):
        raise RequestError(f"The {which} conditioning brings a picture of its own, as WanImageToVideo puts it in; the "
                           "picture comes from first_frame here. Connect the conditioning from before that node.")
