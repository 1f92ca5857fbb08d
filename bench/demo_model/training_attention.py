"""The experts' attention written as matrix products, which a CPU trains through faster than through torch's own kernel.

Attention over the few hundred tokens of a demo clip is small enough to hold its whole score matrix. As plain products
it runs on a CPU's matrix units (AMX) in bfloat16, forward and backward, and torch.compile fuses what lies between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel


def swap_pairs(width: int) -> torch.Tensor:
    """(width, width): x @ this is (-x1, x0, -x3, x2, ...), the half of a rotation that the sine multiplies."""
    matrix = torch.zeros(width, width)
    even = torch.arange(0, width, 2)
    matrix[even, even + 1], matrix[even + 1, even] = 1, -1
    return matrix


class TrainingAttention:
    """Attention processor for WanAttention, for text and for the clip itself.

    Takes what diffusers' WanAttnProcessor takes; `bias` (B, 1, 1, L) is added to the scores of text.
    """

    bias: torch.Tensor | None = None  # shared by every layer of every expert
    swap = swap_pairs(128)

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        text = encoder_hidden_states is not None
        source = encoder_hidden_states if text else hidden_states
        query, key, value = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        if rotary_emb is not None:
            # Each angle stands twice in diffusers' tables, once for either number of a pair.
            cos, sin = rotary_emb
            query, key = (x * cos + torch.matmul(x, self.swap) * sin for x in (query, key))
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(-1, -2)).float()
        if text:
            scores = scores + TrainingAttention.bias
        mixed = torch.matmul(F.softmax(scores, -1), value).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](mixed))


def use_training_attention(model: WanTransformer3DModel) -> None:
    """Give every attention of the model this processor; its text must come from `text.embed`, which sets the bias."""
    for block in model.blocks:
        block.attn1.set_processor(TrainingAttention())
        block.attn2.set_processor(TrainingAttention())
