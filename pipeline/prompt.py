"""Prompts -> UMT5 embeddings in ComfyUI's CONDITIONING layout.

As Wan was trained (wan/modules/t5.py): at most 512 tokens, the end token included, and zeros behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .request import MAX_PROMPT_TOKENS, check_prompt_tokens

if TYPE_CHECKING:
    import sentencepiece

    from .host import Resident

PAD, END = 0, 1
Tokens = dict[str, list[list[tuple[int, float]]]]
"""ComfyUI's token layout: encoder name -> batches -> (id, weight)."""


class TextEncoder:
    """The encoder of a CLIP socket: the two calls that ComfyUI's text nodes make."""

    def __init__(self, resident: Resident, dtype: torch.dtype, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
        self.resident, self.dtype, self.tokenizer = resident, dtype, tokenizer

    @property
    def patcher(self) -> Any:
        """What ComfyUI's cache weighs and its memory manager evicts."""
        return getattr(self.resident, "patcher", None)

    def tokenize(self, text: str) -> Tokens:
        """Ids of the text and of its end token, padded to 512 where shorter."""
        ids = [*self.tokenizer.encode(text), END]
        ids += [PAD] * (MAX_PROMPT_TOKENS - len(ids))
        return {"umt5xxl": [[(i, 1.0) for i in ids]]}

    @torch.no_grad()
    def encode_from_tokens_scheduled(self, tokens: Tokens) -> list[list[Any]]:
        """CONDITIONING: [[embeddings (1, 512, d_model) float32 on the CPU, {}]], zero behind the end token."""
        ids = torch.tensor([[i for i, _ in batch] for batch in tokens["umt5xxl"]])
        check_prompt_tokens(count_tokens(tokens), "prompt")
        device = self.resident.bring(0)
        ids = ids.to(device)
        mask = (ids != PAD).long()
        embeddings = self.resident.module(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        return [[embeddings.float().cpu(), {}]]


def count_tokens(tokens: Tokens) -> int:
    """Tokens of the longest batch without its padding; the end token counts."""
    return max(sum(entry[0] != PAD for entry in batch) for batches in tokens.values() for batch in batches)


def encode_prompts(clip: Any, prompt: str, negative_prompt: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """CONDITIONING of both prompts, by our encoder or by a CLIP of ComfyUI's own loaders.

    Raises RequestError for a prompt over 512 tokens before either is encoded.
    """
    texts = {"prompt": prompt, "negative prompt": negative_prompt}
    tokens = {which: clip.tokenize(text) for which, text in texts.items()}
    for which, of_text in tokens.items():
        check_prompt_tokens(count_tokens(of_text), which)
    positive, negative = (clip.encode_from_tokens_scheduled(of_text) for of_text in tokens.values())
    return positive, negative
