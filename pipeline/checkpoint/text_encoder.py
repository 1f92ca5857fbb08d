"""A UMT5 encoder with its vocabulary: the single file Comfy-Org ships -> UMT5EncoderModel and a tokenizer.

The file holds transformers' own parameter names and `spiece_model`, the sentencepiece model as a uint8 tensor
(ComfyUI, comfy/text_encoders/spiece_tokenizer.py). The configuration follows from the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..host import Host, Resident
from .errors import CheckpointError, check_keys, load_exactly
from .probe import probe
from .safetensors_file import read_tensors
from .slots import Slot, check_slot

if TYPE_CHECKING:
    import sentencepiece
    import torch

WHAT = "UMT5 encoder"


def load_text_encoder(path: Path, host: Host,
                      ) -> tuple[Resident, torch.dtype, sentencepiece.SentencePieceProcessor]:
    """The encoder, the dtype to run it in and its tokenizer. Raises CheckpointError when the file is another."""
    found = probe(path)
    check_slot(found, Slot.TEXT)
    shapes = found.header.shapes
    needed = {"shared.weight", *(f"encoder.block.0.layer.{part}.weight" for part in
                                 ("0.SelfAttention.q", "1.DenseReluDense.wi_0"))}
    check_keys(path.name, WHAT, needed, needed & set(shapes))
    import sentencepiece
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    tensors = read_tensors(path)
    vocabulary = tensors.pop("spiece_model").numpy().tobytes()
    try:
        tokenizer = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    except RuntimeError as error:
        raise CheckpointError(f"{path.name} has a vocabulary that cannot be read. Fetch it again.") from error
    layer = "encoder.block.0.layer."
    heads = shapes[layer + "0.SelfAttention.relative_attention_bias.weight"][1]
    config = UMT5Config(
        vocab_size=shapes["shared.weight"][0],
        d_model=shapes["shared.weight"][1],
        num_heads=heads,
        d_kv=shapes[layer + "0.SelfAttention.q.weight"][0] // heads,
        d_ff=shapes[layer + "1.DenseReluDense.wi_0.weight"][0],
        num_layers=max(int(k.split(".")[2]) for k in shapes if k.startswith("encoder.block.")) + 1,
        dropout_rate=0.0,
    )
    dtype = host.compute_dtype(tensors["shared.weight"].dtype)
    if dtype == torch.float16:  # UMT5-XXL's feed-forward layers leave float16's range
        dtype = torch.float32
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config)
    cast = {key: value.to(dtype) for key, value in tensors.items()}
    cast["encoder.embed_tokens.weight"] = cast["shared.weight"]
    load_exactly(path.name, WHAT, encoder, cast)
    return host.adopt(encoder.eval().requires_grad_(False)), dtype, tokenizer
