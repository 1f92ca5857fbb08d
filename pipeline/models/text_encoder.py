"""Load a UMT5 encoder with its tokenizer, and encode prompts to embeddings in ComfyUI's CONDITIONING layout.

Prompts are encoded as Wan was trained (wan/modules/t5.py): at most 512 tokens with the end token, then zeros.

Comfy-Org's single files have transformers' parameter names and `spiece_model`, the sentencepiece model as a uint8
tensor (ComfyUI, comfy/text_encoders/spiece_tokenizer.py). A diffusers folder, text_encoder/, has tokenizer/spiece.model
beside it. The configuration follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.errors import CheckpointError
from ..checkpoint.folder import vocabulary_file
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import probe_checkpoint
from ..checkpoint.quantised import Weight, dequantise
from ..checkpoint.read import check_keys, load_exactly, read_weights
from ..request import MAX_PROMPT_TOKENS, check_prompt_tokens
from .host import Host, Resident

if TYPE_CHECKING:
    import sentencepiece

WHAT = "UMT5 encoder"
XXL_WIDTH = 4096
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


def is_umt5_xxl(path: Path) -> bool:
    """True for a single file with UMT5-XXL's width, which ComfyUI can load itself.

    Raises CheckpointError when it is not a UMT5 encoder that can be read.
    """
    facts = probe_checkpoint(path)
    check_slot(facts, Slot.TEXT)
    return path.is_file() and facts.header.shapes.get("shared.weight", (0, 0))[1] == XXL_WIDTH


def load_text_encoder(path: Path, host: Host,
                      ) -> tuple[Resident, torch.dtype, sentencepiece.SentencePieceProcessor]:
    """Load the encoder from a file or a diffusers folder; return it, its compute dtype and its tokenizer.

    Raises CheckpointError for any other file.
    """
    check_slot(probe_checkpoint(path), Slot.TEXT)
    weights = read_weights(path)[0]
    layer = "encoder.block.0.layer."
    needed = {"shared.weight", f"{layer}0.SelfAttention.q.weight", f"{layer}1.DenseReluDense.wi_0.weight"}
    check_keys(path.name, WHAT, needed, needed & set(weights))
    import sentencepiece
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
    if dtype == torch.float16:  # UMT5-XXL's feed-forward layers overflow float16
        dtype = torch.float32
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config)
    cast = {key: dequantise(value, dtype) for key, value in weights.items()}
    cast["encoder.embed_tokens.weight"] = cast["shared.weight"]
    load_exactly(path.name, WHAT, encoder, cast)
    return host.adopt(encoder.eval().requires_grad_(False)), dtype, tokenizer


def _vocabulary(path: Path, weights: dict[str, Weight]) -> bytes:
    """Return the sentencepiece model of a single file or a diffusers folder; `check_slot` ensures that there is one."""
    beside = vocabulary_file(path) if path.is_dir() else None
    return beside.read_bytes() if beside else weights.pop("spiece_model").numpy().tobytes()
