"""Find the sentencepiece vocabulary of a UMT5 encoder: in its file, in a GGUF file's metadata, or beside it.

Comfy-Org's files hold it as the uint8 tensor `spiece_model` (ComfyUI, comfy/text_encoders/spiece_tokenizer.py).
llama.cpp writes its pieces into `tokenizer.ggml.*` (github.com/ggml-org/ggml, docs/gguf.md), from which it is rebuilt
here. Files with the official code's names have none; the official repository keeps it in google/umt5-xxl/spiece.model.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from .errors import CheckpointError
from .gguf_file import MAGIC, GGUFValue, read_gguf_values
from .header import Header, read_opening

TENSOR = "spiece_model"
GGML = "tokenizer.ggml."
UNIGRAM = 1
BYTE = 6
"""The type of a piece that stands for one byte; ggml's types are those of sentencepiece."""
BESIDE = ("spiece.model", "tokenizer/spiece.model", "google/umt5-xxl/spiece.model")
"""Places below the folder of a file: alone, as in WanVideoWrapper's configs, and as in Wan-AI's repositories."""


def vocabulary_file(path: Path) -> Path | None:
    """Return the sentencepiece model beside a file; for a folder, the one in it or in `tokenizer` beside it."""
    if path.is_dir():
        places = (path / "spiece.model", path.parent / "tokenizer" / "spiece.model")
    else:
        places = tuple(path.parent / place for place in BESIDE)
    return next((place for place in places if place.is_file()), None)


def has_vocabulary(header: Header) -> bool:
    """True when the header shows a vocabulary, or one lies beside the file."""
    return (TENSOR in header.shapes or header.metadata.get(f"{GGML}model") == "t5"
            or vocabulary_file(header.path) is not None)


def vocabulary_outside_tensors(path: Path) -> bytes:
    """Return the sentencepiece model (serialised ModelProto) of a file without the tensor.

    Raises CheckpointError when there is none, and when the metadata of a GGUF file do not give one.
    """
    if path.is_file() and read_opening(path)[0].startswith(MAGIC):
        values = read_gguf_values(path, GGML)
        if values.get(f"{GGML}model") == "t5":
            try:
                return sentencepiece_model({key.removeprefix(GGML): value for key, value in values.items()})
            except (KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
                raise CheckpointError(f"{path.name} has a vocabulary that cannot be read ({error!r}). Fetch it "
                                      "again.") from error
    beside = vocabulary_file(path)
    if beside is None:
        raise CheckpointError(no_vocabulary(path.name))
    return beside.read_bytes()


def no_vocabulary(name: str) -> str:
    """Return the sentence for a text encoder without a vocabulary."""
    return (f"{name} holds no vocabulary (spiece_model). Use Comfy-Org's single file, or put spiece.model beside it, "
            "from the folder google/umt5-xxl of huggingface.co/Wan-AI/Wan2.2-I2V-A14B.")


def sentencepiece_model(values: Mapping[str, GGUFValue]) -> bytes:
    """Return the serialised ModelProto of the metadata below `tokenizer.ggml.`.

    The fields are those of sentencepiece's src/sentencepiece_model.proto, written by hand because protobuf's package is
    not among ComfyUI's requirements. Raises KeyError, ValueError, TypeError, AttributeError or struct.error for
    other metadata.
    """
    tokens, scores, types = values["tokens"], values["scores"], values["token_type"]
    pieces = b"".join(_bytes(1, _bytes(1, token.encode()) + _float(2, score) + _int(3, kind))
                      for token, score, kind in zip(tokens, scores, types, strict=True))
    trainer = _int(3, UNIGRAM) + _int(4, len(tokens)) + _int(35, BYTE in types)
    charsmap = bytes(number & 0xFF for number in values.get("precompiled_charsmap", ()))
    normalizer = (_bytes(2, charsmap) + _int(3, values.get("add_space_prefix", "True") == "True")
                  + _int(4, values.get("remove_extra_whitespaces", "True") == "True"))
    return pieces + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(number: int) -> bytes:
    """Return protobuf's variable-length form of a number from 0 on."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _int(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(int(number))


def _float(field: int, number: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data
