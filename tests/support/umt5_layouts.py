"""Writes a UMT5 encoder in the layouts of city96's GGUF files and of Kijai's umt5-xxl-enc files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]
Write = Callable[[Weights, Path], Weights]
"""Writes a file and returns the weights that it stands for, in float32 and under transformers' names."""
LLAMA_CPP = {
    r"shared": "token_embd", r"encoder\.final_layer_norm": "enc.output_norm",
    r"encoder\.block\.(\d+)\.layer\.0\.layer_norm": r"enc.blk.\1.attn_norm",
    r"encoder\.block\.(\d+)\.layer\.1\.layer_norm": r"enc.blk.\1.ffn_norm",
    r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])": r"enc.blk.\1.attn_\2",
    r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias": r"enc.blk.\1.attn_rel_b",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0": r"enc.blk.\1.ffn_gate",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1": r"enc.blk.\1.ffn_up",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo": r"enc.blk.\1.ffn_down",
}
OFFICIAL = {
    r"shared": "token_embedding", r"encoder\.final_layer_norm": "norm",
    r"encoder\.block\.(\d+)\.layer\.0\.layer_norm": r"blocks.\1.norm1",
    r"encoder\.block\.(\d+)\.layer\.1\.layer_norm": r"blocks.\1.norm2",
    r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])": r"blocks.\1.attn.\2",
    r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias":
        r"blocks.\1.pos_embedding.embedding",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0": r"blocks.\1.ffn.gate.0",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1": r"blocks.\1.ffn.fc1",
    r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo": r"blocks.\1.ffn.fc2",
}


def renamed(weights: Weights, names: dict[str, str]) -> Weights:
    """The weights under the names that the table gives them; every one must be in it."""
    found = {}
    for name, weight in weights.items():
        (new,) = (re.sub(f"^{old}$", to, name.removesuffix(".weight")) for old, to in names.items()
                  if re.fullmatch(old, name.removesuffix(".weight")))
        found[f"{new}.weight"] = weight
    return found


def official(dtype: torch.dtype) -> Write:
    """As Kijai's: fp8 casts the layers alone, the rest stays bf16."""

    def write(weights: Weights, path: Path) -> Weights:
        cast = {name: weight.to(dtype if ".SelfAttention." in name or ".Dense" in name else torch.bfloat16)
                for name, weight in weights.items() if name != "spiece_model"}
        save_file(renamed(cast, OFFICIAL), path)
        return {**weights, **{name: weight.float() for name, weight in cast.items()}}

    return write


def gguf_file(kind: str, *, vocabulary: bool = True) -> Write:
    """As city96's: layers and embeddings packed, norms and position biases in float32, pieces in the metadata."""

    def write(weights: Weights, path: Path) -> Weights:
        import gguf

        ggml_type = gguf.GGMLQuantizationType[kind]
        writer = gguf.GGUFWriter(path, "t5encoder")
        pieces = weights["spiece_model"]
        weights = {name: weight for name, weight in weights.items() if name != "spiece_model"}
        if vocabulary:
            add_vocabulary(writer, pieces.numpy().tobytes())
        meant = dict(weights)
        for (old, weight), name in zip(weights.items(), renamed(weights, LLAMA_CPP), strict=True):
            data = weight.float().numpy()
            if weight.ndim == 1 or "relative" in old:
                writer.add_tensor(name, data)
                continue
            packed = gguf.quants.quantize(data, ggml_type)
            writer.add_tensor(name, packed, raw_dtype=ggml_type)
            meant[old] = torch.from_numpy(gguf.quants.dequantize(packed, ggml_type))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {**meant, "spiece_model": pieces}

    return write


def add_vocabulary(writer: object, proto: bytes) -> None:
    """Write the pieces as llama.cpp's convert_hf_to_gguf.py does for T5."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    count = pieces.get_piece_size()
    kinds = {2: pieces.is_unknown, 3: pieces.is_control, 5: pieces.is_unused, 6: pieces.is_byte}
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces.id_to_piece(i) for i in range(count)])
    writer.add_token_scores([pieces.get_score(i) for i in range(count)])
    writer.add_token_types([next((kind for kind, holds in kinds.items() if holds(i)), 1) for i in range(count)])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
