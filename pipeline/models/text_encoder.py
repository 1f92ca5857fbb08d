"""Encode prompts with a UMT5 encoder to embeddings in ComfyUI's CONDITIONING layout.

Prompts are encoded as Wan was trained (wan/modules/t5.py): at most 512 tokens with the end token, then zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..request import MAX_PROMPT_TOKENS, RequestError, check_prompt_tokens
from .host import Resident
from .prompt_weights import weighted_parts

if TYPE_CHECKING:
    import sentencepiece

PAD, END = 0, 1
UMT5 = "umt5xxl"
"""ComfyUI's name of the encoder, in its tokens (comfy/text_encoders/wan.py)."""
TokenBatches = dict[str, list[list[tuple[int, float]]]]
"""ComfyUI's token layout: encoder name -> batches -> (id, weight)."""


def encode_prompts(clip: Any, prompt: str, negative_prompt: str) -> tuple[list[list[Any]], list[list[Any]]]:
    """Encode both prompts to CONDITIONING, with a TextEncoder or a CLIP of ComfyUI's loaders.

    Raises as encode_texts.
    """
    positive, negative = encode_texts(clip, {"prompt": prompt, "negative prompt": negative_prompt})
    return positive, negative


def encode_texts(clip: Any, texts: Mapping[str, str]) -> list[list[list[Any]]]:
    """Encode texts, by what messages call them, to a CONDITIONING each.

    Raises RequestError for no encoder, as some checkpoints have none, and for a text over 512 tokens, before any is
    encoded.
    """
    if clip is None:
        raise RequestError("There is no text encoder: the file that clip comes from holds none. Connect Load Wan 2.2, "
                           "or Load CLIP with umt5_xxl and the type wan.")
    tokens = {which: clip.tokenize(text) for which, text in texts.items()}
    for which, of_text in tokens.items():
        if UMT5 not in of_text:  # T5-XXL's embeddings have the same width, and another vocabulary
            raise RequestError(f"clip is the text encoder of another model ({', '.join(of_text)}). Connect Load Wan "
                               "2.2, or Load CLIP with umt5_xxl and the type wan.")
        check_prompt_tokens(count_tokens(of_text), which)
    return [clip.encode_from_tokens_scheduled(of_text) for of_text in tokens.values()]


def count_tokens(tokens: TokenBatches) -> int:
    """Return the tokens of the longest batch, with the end token and without padding.

    ComfyUI's tokenizers put the vectors of an `embedding:name` in place of ids; each counts as one token.
    """
    return max(sum(not isinstance(entry[0], int) or entry[0] != PAD for entry in batch)
               for batches in tokens.values() for batch in batches)


class TextEncoder:
    """A text encoder for a CLIP socket, with the two methods that ComfyUI's text nodes call."""

    def __init__(self, resident: Resident, dtype: torch.dtype, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
        self.resident, self.dtype, self.tokenizer = resident, dtype, tokenizer

    @property
    def patcher(self) -> Any:
        """The patcher that ComfyUI's cache and memory manager ask for."""
        return getattr(self.resident, "patcher", None)

    def tokenize(self, text: str) -> TokenBatches:
        """Return the ids of the text and the end token, padded to 512, each with its weight.

        Weights are read as by ComfyUI (prompt_weights.py). Raises RequestError for those that cannot be used.
        """
        tokens = [(i, weight) for part, weight in weighted_parts(text) for i in self.tokenizer.encode(part)]
        tokens.append((END, 1.0))
        return {UMT5: [tokens + [(PAD, 1.0)] * (MAX_PROMPT_TOKENS - len(tokens))]}

    @torch.no_grad()
    def encode_from_tokens_scheduled(self, tokens: TokenBatches) -> list[list[Any]]:
        """Return CONDITIONING: [[embeddings (1, 512, d_model) float32 on the CPU, {}]], zero behind the end token.

        A weight moves a token's embedding away from that of an empty prompt or towards it, as in ComfyUI
        (comfy/sd1_clip.py, `ClipTokenWeightEncoder`).
        """
        check_prompt_tokens(count_tokens(tokens), "prompt")
        ids, weights = (torch.tensor([[entry[place] for entry in batch] for batch in tokens[UMT5]])
                        for place in (0, 1))
        if (weights == 1).all():
            return [[self._embed(ids), {}]]
        empty = torch.full_like(ids[:1], PAD)
        empty[:, 0] = END
        found = self._embed(torch.cat([ids, empty]))
        nothing = found[-1]
        weights = weights[..., None]
        return [[torch.where(weights == 1, found[:-1], (found[:-1] - nothing) * weights + nothing), {}]]

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (rows, 512, d_model) of ids (rows, 512), float32 on the CPU."""
        ids = ids.to(self.resident.load_to_device(0))
        mask = (ids != PAD).long()
        embeddings = self.resident.module(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
        return embeddings.float().cpu()
