"""Load a UMT5 encoder and its tokenizer, from a single file, a GGUF file or a diffusers folder.

Names are transformers' (Comfy-Org's files and diffusers folders), the official code's (wan/modules/t5.py of
github.com/Wan-Video/Wan2.2; Kijai's umt5-xxl-enc files) or llama.cpp's (gguf-py/gguf/tensor_mapping.py;
umt5-xxl-encoder-*.gguf). The configuration follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..checkpoint.errors import CheckpointError
from ..checkpoint.kinds import KeyLayout
from ..checkpoint.library import Slot, check_slot
from ..checkpoint.probe import StorageFamily, probe_checkpoint
from ..checkpoint.quantised import Weight, dequantise, stored_dtype
from ..checkpoint.read import check_keys, check_weights, read_weights
from ..checkpoint.vocabulary import TENSOR, vocabulary_outside_tensors
from .host import Host, Resident
from .layers import StoredEmbedding, linear_names, replace_linear

if TYPE_CHECKING:
    import sentencepiece

WHAT = "UMT5 encoder"
XXL_WIDTH = 4096
EMBEDDING, EMBEDDING_AGAIN = "shared.weight", "encoder.embed_tokens.weight"
ATTENTION, FEED_FORWARD = "layer.0.SelfAttention.", "layer.1.DenseReluDense."
OFFICIAL = {
    "token_embedding.": "shared.", "blocks.": "encoder.block.", ".norm1.": ".layer.0.layer_norm.",
    ".norm2.": ".layer.1.layer_norm.", "norm.": "encoder.final_layer_norm.", ".attn.": f".{ATTENTION}",
    ".pos_embedding.embedding.": f".{ATTENTION}relative_attention_bias.", ".ffn.gate.0.": f".{FEED_FORWARD}wi_0.",
    ".ffn.fc1.": f".{FEED_FORWARD}wi_1.", ".ffn.fc2.": f".{FEED_FORWARD}wo.",
}
"""Parts of the official code's names -> transformers'; a part that starts without a dot stands at the beginning."""
LLAMA_CPP = {
    "token_embd.": "shared.", "enc.blk.": "encoder.block.", "enc.output_norm.": "encoder.final_layer_norm.",
    ".attn_norm.": ".layer.0.layer_norm.", ".ffn_norm.": ".layer.1.layer_norm.", ".attn_q.": f".{ATTENTION}q.",
    ".attn_k.": f".{ATTENTION}k.", ".attn_v.": f".{ATTENTION}v.", ".attn_o.": f".{ATTENTION}o.",
    ".attn_rel_b.": f".{ATTENTION}relative_attention_bias.", ".ffn_gate.": f".{FEED_FORWARD}wi_0.",
    ".ffn_up.": f".{FEED_FORWARD}wi_1.", ".ffn_down.": f".{FEED_FORWARD}wo.",
}
"""The same of llama.cpp's names."""


class GatedFeedForward(nn.Module):
    """UMT5's feed-forward layers, without transformers' cast to the dtype that the last one is stored in."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.wi_0, self.wi_1, self.wo, self.act = layers.wi_0, layers.wi_1, layers.wo, layers.act

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return (..., d_model), in the dtype of the input."""
        return self.wo(self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states))


def is_for_host(path: Path) -> bool:
    """True for a single file of UMT5-XXL's width that ComfyUI's own loader reads: its names, its vocabulary inside.

    Raises CheckpointError when it is not a UMT5 encoder that can be read.
    """
    facts = probe_checkpoint(path)
    check_slot(facts, Slot.TEXT)
    shapes = facts.header.shapes
    return (path.is_file() and facts.layout is KeyLayout.NATIVE and TENSOR in shapes
            and facts.storage.family is not StorageFamily.SCALES
            and shapes.get(EMBEDDING, (0, 0))[1] == XXL_WIDTH)


def load_text_encoder(path: Path, host: Host,
                      ) -> tuple[Resident, torch.dtype, sentencepiece.SentencePieceProcessor]:
    """Load the encoder from a file or a diffusers folder; return it, its compute dtype and its tokenizer.

    Linear layers and embeddings stay memory-mapped, in the dtype and quantisation that they have. Raises
    CheckpointError for any other file.
    """
    check_slot(probe_checkpoint(path), Slot.TEXT)
    weights = rename_to_transformers(read_weights(path, map_file=host.map_file)[0])
    first = f"encoder.block.0.{ATTENTION}q.weight"
    needed = {EMBEDDING, first, f"encoder.block.0.{FEED_FORWARD}wi_0.weight"}
    check_keys(path.name, WHAT, needed, needed & set(weights))
    tokenizer = _tokenizer(path, weights)
    dtype = _compute_dtype(weights[first], host)
    encoder = _empty(weights)
    weights[EMBEDDING_AGAIN] = weights[EMBEDDING]
    check_weights(path.name, WHAT, encoder.state_dict(), weights)
    try:
        _fill(encoder, weights, dtype, host)
    except CheckpointError as error:  # a layer does not know its file
        raise CheckpointError(f"{path.name}: {error}") from error
    return host.adopt(encoder), dtype, tokenizer


def rename_to_transformers(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Return the weights under transformers' names."""
    if "token_embedding.weight" in weights:
        parts = OFFICIAL
    elif "token_embd.weight" in weights:
        parts = LLAMA_CPP
    else:
        return weights
    renamed = {}
    for name, weight in weights.items():
        for part, new in parts.items():
            if part.startswith("."):
                name = name.replace(part, new)
            elif name.startswith(part):
                name = new + name.removeprefix(part)
        renamed[name] = weight
    return renamed


def _tokenizer(path: Path, weights: dict[str, Weight]) -> sentencepiece.SentencePieceProcessor:
    """Return the tokenizer of the encoder, and take its vocabulary out of the weights where it is among them.

    Raises CheckpointError for a vocabulary that is damaged or has more pieces than there are embeddings.
    """
    import sentencepiece

    inside = weights.pop(TENSOR, None)
    proto = vocabulary_outside_tensors(path) if inside is None else inside.numpy().tobytes()
    try:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} has a vocabulary that cannot be read. Fetch it again.") from error
    pieces, rows = tokenizer.get_piece_size(), weights[EMBEDDING].shape[0]
    if pieces > rows:
        raise CheckpointError(f"The vocabulary of {path.name} has {pieces:,} pieces and its embeddings have {rows:,} "
                              "rows: it is of another model. Take spiece.model of google/umt5-xxl.")
    return tokenizer


def _compute_dtype(weight: Weight, host: Host) -> torch.dtype:
    """Return the dtype to compute in; never float16, which UMT5-XXL's feed-forward layers overflow."""
    stored = stored_dtype(weight)
    dtype = host.compute_dtype(torch.bfloat16 if stored.itemsize == 1 else stored)
    return torch.float32 if dtype is torch.float16 else dtype


def _empty(weights: dict[str, Weight]) -> nn.Module:
    """Return UMT5EncoderModel on the meta device, without weights, in the sizes of these."""
    from transformers import UMT5Config, UMT5EncoderModel

    first = "encoder.block.0."
    heads = weights[f"{first}{ATTENTION}relative_attention_bias.weight"].shape[1]
    config = UMT5Config(
        vocab_size=weights[EMBEDDING].shape[0],
        d_model=weights[EMBEDDING].shape[1],
        num_heads=heads,
        d_kv=weights[f"{first}{ATTENTION}q.weight"].shape[0] // heads,
        d_ff=weights[f"{first}{FEED_FORWARD}wi_0.weight"].shape[0],
        num_layers=max(int(k.split(".")[2]) for k in weights if k.startswith("encoder.block.")) + 1,
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config)
    return encoder.eval().requires_grad_(False)


def _fill(encoder: nn.Module, weights: dict[str, Weight], dtype: torch.dtype, host: Host) -> None:
    """Assign the weights: linear layers and embeddings as stored, the norms and position biases in `dtype`."""
    layers = linear_names(encoder)
    stored = {EMBEDDING, EMBEDDING_AGAIN, *(f"{name}.weight" for name in layers)}
    rest = {key: dequantise(weight, dtype) for key, weight in weights.items() if key not in stored}
    encoder.load_state_dict(rest, assign=True, strict=False)
    linear = host.linear(dtype)
    for name in layers:
        replace_linear(encoder, name, weights, linear)
    for block in encoder.encoder.block:
        block.layer[1].DenseReluDense = GatedFeedForward(block.layer[1].DenseReluDense)
    embedding = StoredEmbedding(weights[EMBEDDING], dtype)
    encoder.shared = encoder.encoder.embed_tokens = embedding
