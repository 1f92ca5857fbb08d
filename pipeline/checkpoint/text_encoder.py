"""A UMT5 encoder with its vocabulary -> UMT5EncoderModel and a tokenizer.

Single files as Comfy-Org ships them hold transformers' own parameter names and `spiece_model`, the sentencepiece model
as a uint8 tensor (ComfyUI, comfy/text_encoders/spiece_tokenizer.py). A diffusers folder, text_encoder/, has
tokenizer/spiece.model beside it. The configuration follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import CheckpointError, check_keys, load_exactly
from .folder import vocabulary_file
from .probe import probe
from .quantised import Weight, dequantise
from .read import read_weights
from .slots import Slot, check_slot

if TYPE_CHECKING:
    import sentencepiece
    import torch

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
