"""Encode prompts with a UMT5 encoder to embeddings in ComfyUI's CONDITIONING layout.

Prompts are encoded as Wan was trained (wan/modules/t5.py): at most 512 tokens with the end token, then zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..request import MAX_PROMPT_TOKENS, check_prompt_tokens
from .host import Resident

if TYPE_CHECKING:
    import sentencepiece

PAD, END = 0, 1
TokenBatches = dict[str, list[list[tuple[int, float]]]]
"""ComfyUI's token layout: encoder name -> batches -> (id, weight)."""


def encode_prompts(clip: Any, prompt: str, negative_prompt: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """Encode both prompts to CONDITIONING, with a TextEncoder or a CLIP of ComfyUI's loaders.

    Raises RequestError for a prompt over 512 tokens, before either is encoded.
    """
    texts = {"prompt": prompt, "negative prompt": negative_prompt}
    tokens = {which: clip.tokenize(text) for which, text in texts.items()}
    for which, of_text in tokens.items():
        check_prompt_tokens(count_tokens(of_text), which)
    positive, negative = (clip.encode_from_tokens_scheduled(of_text) for of_text in tokens.values())
    return positive, negative


def count_tokens(tokens: TokenBatches) -> int:
    """Return the tokens of the longest batch, with the end token and without padding."""
    return max(sum(entry[0] != PAD for entry in batch) for batches in tokens.values() for batch in batches)


class TextEncoder:
    """A text encoder for a CLIP socket, with the two methods that ComfyUI's text nodes call."""

    def __init__(self, resident: Resident, dtype: torch.dtype, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
        self.resident, self.dtype, self.tokenizer = resident, dtype, tokenizer

    @property
    def patcher(self) -> Any:
        """The patcher that ComfyUI's cache and memory manager ask for."""
        return getattr(self.resident, "patcher", None)

    def tokenize(self, text: str) -> TokenBatches:
        """Return the ids of the text and the end token, padded to 512."""
        ids = [*self.tokenizer.encode(text), END]
        ids += [PAD] * (MAX_PROMPT_TOKENS - len(ids))
        return {"umt5xxl": [[(i, 1.0) for i in ids]]}

    @torch.no_grad()
    def encode_from_tokens_scheduled(self, tokens: TokenBatches) -> list[list[Any]]:
        """Return CONDITIONING: [[embeddings (1, 512, d_model) float32 on the CPU, {}]], zero behind the end token."""
        ids = torch.tensor([[i for i, _ in batch] for batch in tokens["umt5xxl"]])
        check_prompt_tokens(count_tokens(tokens), "prompt")
        device = self.resident.load_to_device(0)
        ids = ids.to(device)
        mask = (ids != PAD).long()
        embeddings = self.resident.module(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        return [[embeddings.float().cpu(), {}]]
