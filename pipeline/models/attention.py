"""Run the transformer's attention by a function of the host: the one that the user chose, or that suits the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import WanTransformer3DModel

TransformerOptions = dict[str, Any]
"""ComfyUI's name for what a pass tells the functions that it calls, and they each other; new for each pass."""
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor | None, TransformerOptions],
                  torch.Tensor]
"""(query (B, S, heads x D), key and value (B, T, heads x D), heads, mask or None, options) -> (B, S, heads x D)."""


class HostAttention:
    """An attention processor like diffusers' WanAttnProcessor (models/transformers/transformer_wan.py).

    The branch for image embeddings is left out: no Wan 2.2 I2V-A14B expert has it.
    """

    def __init__(self, attend: Attend, block_index: int, options: TransformerOptions) -> None:
        self.attend, self.block_index, self.options = attend, block_index, options

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None,
                 attention_mask: torch.Tensor | None = None,
                 rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None) -> torch.Tensor:
        """Return self-attention of hidden_states (B, S, C), or cross-attention to encoder_hidden_states (B, T, C).

        rotary_emb: cosines and sines (1, S, 1, D), each angle's twice in a row.
        """
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        if rotary_emb is not None:
            query, key = (_rotated(part.unflatten(2, (attn.heads, -1)), *rotary_emb).flatten(2)
                          for part in (query, key))
        attended = self._attend(query, key, value, attn.heads, attention_mask)
        return attn.to_out[1](attn.to_out[0](attended.type_as(query)))

    @torch.compiler.disable  # the host's function may do anything, and its block's number is another in each block
    def _attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int,
                mask: torch.Tensor | None) -> torch.Tensor:
        self.options["block_index"] = self.block_index
        return self.attend(query, key, value, heads, mask, self.options)


def use_attention(model: WanTransformer3DModel, attend: Attend | None, options: TransformerOptions) -> None:
    """Run the next passes of an expert by this attention, with these options; None: by diffusers' own, without.

    The options get what ComfyUI's Wan model adds to them (comfy/ldm/wan/model.py, forward_orig).
    """
    from diffusers.models.transformers.transformer_wan import WanAttnProcessor

    options |= {"total_blocks": len(model.blocks), "block_type": "double"}
    for index, block in enumerate(model.blocks):
        for attn in (block.attn1, block.attn2):
            if attend is not None:
                attn.set_processor(HostAttention(attend, index, options))
            elif isinstance(attn.processor, HostAttention):
                attn.set_processor(WanAttnProcessor())


def _rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of neighbours in x (B, S, heads, D) by its angle (RoPE, arXiv 2104.09864)."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosines, sines = cosines[..., 0::2], sines[..., 1::2]
    return torch.stack((first * cosines - second * sines, first * sines + second * cosines), -1).flatten(-2).type_as(x)
