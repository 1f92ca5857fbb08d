"""Run the transformer's attention by a function of the host: the one that the user chose, or that suits the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor | None], torch.Tensor]
"""(query (B, S, heads x D), key and value (B, T, heads x D), heads, mask or None) -> (B, S, heads x D)."""


class HostAttention:
    """An attention processor like diffusers' WanAttnProcessor (models/transformers/transformer_wan.py).

    The branch for image embeddings is left out: no Wan 2.2 I2V-A14B expert has it.
    """

    def __init__(self, attend: Attend) -> None:
        self.attend = attend

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
        attended = self.attend(query, key, value, attn.heads, attention_mask)
        return attn.to_out[1](attn.to_out[0](attended.type_as(query)))


def _rotated(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate each pair of neighbours in x (B, S, heads, D) by its angle (RoPE, arXiv 2104.09864)."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosines, sines = cosines[..., 0::2], sines[..., 1::2]
    return torch.stack((first * cosines - second * sines, first * sines + second * cosines), -1).flatten(-2).type_as(x)
