"""A UMT5 encoder with its vocabulary -> UMT5EncoderModel and a tokenizer.

Single files as Comfy-Org ships them hold transformers' own parameter names and `spiece_model`, the sentencepiece model
as a uint8 tensor (ComfyUI, comfy/text_encoders/spiece_tokenizer.py). A diffusers folder, text_encoder/, has
tokenizer/spiece.model beside it. The configuration follows from the shapes.


Prompts -> UMT5 embeddings in ComfyUI's CONDITIONING layout.

As Wan was trained (wan/modules/t5.py): at most 512 tokens, the end token included, and zeros behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.errors import CheckpointError
from ..checkpoint.folder import vocabulary_file
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import probe
from ..checkpoint.quantised import Weight, dequantise
from ..checkpoint.read import check_keys, load_exactly, read_weights
from ..request import MAX_PROMPT_TOKENS, check_prompt_tokens
from .host import Host, Resident

if TYPE_CHECKING:
    import sentencepiece

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

WHAT = "UMT5 encoder"
XXL_WIDTH = 4096


def is_umt5_xxl(path: Path) -> bool:
    """Whether this single file has UMT5-XXL's width, for which ComfyUI has a loader of its own.

    Raises CheckpointError when it is no UMT5 encoder that can be read.
    """
    found = probe(path)
    check_slot(found, Slot.TEXT)
    return path.is_file() and found.header.shapes.get("shared.weight", (0, 0))[1] == XXL_WIDTH


def _vocabulary(path: Path, weights: dict[str, Weight]) -> bytes:
    """The sentencepiece model of a single file or of a diffusers folder; `check_slot` has seen that there is one."""
    beside = vocabulary_file(path) if path.is_dir() else None
    return beside.read_bytes() if beside else weights.pop("spiece_model").numpy().tobytes()


def load_text_encoder(path: Path, host: Host,
                      ) -> tuple[Resident, torch.dtype, sentencepiece.SentencePieceProcessor]:
    """The encoder, the dtype to run it in and its tokenizer, from a file or a diffusers folder.

    Raises CheckpointError when it is another kind of file.
    """
    check_slot(probe(path), Slot.TEXT)
    weights = read_weights(path)[0]
    layer = "encoder.block.0.layer."
    needed = {"shared.weight", f"{layer}0.SelfAttention.q.weight", f"{layer}1.DenseReluDense.wi_0.weight"}
    check_keys(path.name, WHAT, needed, needed & set(weights))
    import sentencepiece
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    try:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=_vocabulary(path, weights))
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} has a vocabulary that cannot be read. Fetch it again.") from error
    heads = weights[f"{layer}0.SelfAttention.relative_attention_bias.weight"].shape[1]
    config = UMT5Config(
        vocab_size=weights["shared.weight"].shape[0],
        d_model=weights["shared.weight"].shape[1],
        num_heads=heads,
        d_kv=weights[f"{layer}0.SelfAttention.q.weight"].shape[0] // heads,
        d_ff=weights[f"{layer}1.DenseReluDense.wi_0.weight"].shape[0],
        num_layers=max(int(k.split(".")[2]) for k in weights if k.startswith("encoder.block.")) + 1,
        dropout_rate=0.0,
    )
    dtype = host.compute_dtype(weights["shared.weight"].dtype)
    if dtype == torch.float16:  # UMT5-XXL's feed-forward layers leave float16's range
        dtype = torch.float32
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config)
    cast = {key: dequantise(value, dtype) for key, value in weights.items()}
    cast["encoder.embed_tokens.weight"] = cast["shared.weight"]
    load_exactly(path.name, WHAT, encoder, cast)
    return host.adopt(encoder.eval().requires_grad_(False)), dtype, tokenizer
