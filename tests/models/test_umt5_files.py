"""The text encoders that people have besides Comfy-Org's give the embeddings of the weights that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import library
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.library import Slot
from pipeline.checkpoint.vocabulary import sentencepiece_model
from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import TextEncoder
from pipeline.models.umt5 import load_text_encoder
from tests.support import umt5_layouts
from tests.support.comfy_in_process import comfy_host

TEXTS = ("the camera pans left slowly", "", "  two  spaces ", "Ein Ballon über \u6771\u4eac \N{BALLOON}\n(next line)")
FP8 = torch.float8_e4m3fn
# layout, largest error of the embeddings against the unquantised file's, relative to their standard deviation
FILES = {
    "gguf F16": (umt5_layouts.gguf_file("F16"), 1e-3),
    "gguf BF16": (umt5_layouts.gguf_file("BF16"), 0.02),
    "gguf Q8_0": (umt5_layouts.gguf_file("Q8_0"), 0.06),
    "gguf Q5_0": (umt5_layouts.gguf_file("Q5_0"), 0.15),
    "gguf Q4_0": (umt5_layouts.gguf_file("Q4_0"), 0.3),
    "official bf16": (umt5_layouts.official(torch.bfloat16), 0.02),
    "official fp8": (umt5_layouts.official(FP8), 0.15),
}
HOSTS = {"comfyui": lambda: comfy_host(), "plain": plain_host}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(bundled.DEMO_TEXT_ENCODER)


def beside(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Put spiece.model where files without a vocabulary find it."""
    (folder / "spiece.model").write_bytes(weights["spiece_model"].numpy().tobytes())


def embeddings(encoder: TextEncoder, text: str) -> torch.Tensor:
    return encoder.encode_from_tokens_scheduled(encoder.tokenize(text))[0][0]


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).pow(2).mean().sqrt() / wanted.std()).item()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_embeddings(name: str, host: str, weights: dict[str, torch.Tensor], tmp_path: Path,
                                          ) -> None:
    write, most = FILES[name]
    path = tmp_path / ("umt5.gguf" if "gguf" in name else "umt5.safetensors")
    save_file(write(weights, path), tmp_path / "meant.safetensors")
    if "gguf" not in name:
        beside(tmp_path, weights)
    assert library.find_weights([tmp_path], path.name, Slot.TEXT, "text_encoders") == path
    wanted, meant = (TextEncoder(*load_text_encoder(file, plain_host()))
                     for file in (bundled.DEMO_TEXT_ENCODER, tmp_path / "meant.safetensors"))
    found = TextEncoder(*load_text_encoder(path, HOSTS[host]()))
    for text in TEXTS:
        assert found.tokenize(text) == wanted.tokenize(text)
        assert error(embeddings(found, text), embeddings(meant, text)) <= 1e-4
        assert error(embeddings(found, text), embeddings(wanted, text)) <= most


@pytest.mark.parametrize("write", [umt5_layouts.gguf_file("Q8_0", vocabulary=False),
                                   umt5_layouts.official(torch.bfloat16)], ids=["gguf", "official"])
def test_without_a_vocabulary_the_sentence_says_what_to_put_where(
        write: umt5_layouts.Write, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "umt5.bin"
    write(weights, path)
    with pytest.raises(CheckpointError, match=r"umt5\.bin holds no vocabulary .* or put spiece\.model beside it"):
        library.find_weights([tmp_path], path.name, Slot.TEXT, "text_encoders")
    beside(tmp_path, weights)  # noticed although the file has not changed
    library.find_weights([tmp_path], path.name, Slot.TEXT, "text_encoders")
    load_text_encoder(path, plain_host())


def test_the_vocabulary_of_another_model_is_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    small = {**weights, "shared.weight": weights["shared.weight"][:100].clone()}
    save_file(small, tmp_path / "umt5.safetensors")
    with pytest.raises(CheckpointError, match=r"The vocabulary of umt5\.safetensors has .* is of another model"):
        load_text_encoder(tmp_path / "umt5.safetensors", plain_host())


@pytest.mark.parametrize("values", [
    {"tokens": ("<unk>",), "scores": (0.0,)}, {"tokens": ("<unk>",), "scores": (0.0, 1.0), "token_type": (2,)},
    {"tokens": (1, 2), "scores": (0.0, 0.0), "token_type": (2, 1)}, {"tokens": "T5", "scores": "", "token_type": ""},
])
def test_damaged_pieces_are_an_error(values: dict, weights: dict[str, torch.Tensor], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    umt5_layouts.gguf_file("Q8_0")(weights, tmp_path / "umt5.gguf")
    found = {f"tokenizer.ggml.{key}": value for key, value in values.items()} | {"tokenizer.ggml.model": "t5"}
    monkeypatch.setattr("pipeline.checkpoint.vocabulary.read_gguf_values", lambda path, prefix: found)
    with pytest.raises(CheckpointError, match=r"umt5\.gguf has a vocabulary that cannot be read"):
        load_text_encoder(tmp_path / "umt5.gguf", plain_host())


def test_normalisation_of_the_metadata_is_used(weights: dict[str, torch.Tensor]) -> None:
    """A vocabulary that keeps runs of spaces and puts none before the text splits differently."""
    import sentencepiece

    original = sentencepiece.SentencePieceProcessor(model_proto=weights["spiece_model"].numpy().tobytes())
    count = original.get_piece_size()
    values = {"tokens": tuple(map(original.id_to_piece, range(count))),
              "scores": tuple(map(original.get_score, range(count))),
              "token_type": tuple(2 if original.is_unknown(i) else 3 if original.is_control(i) else
                                  6 if original.is_byte(i) else 1 for i in range(count))}
    bare = {"add_space_prefix": "False", "remove_extra_whitespaces": "False"}
    made = [sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(values | more)) for more in ({}, bare)]
    assert made[0].encode("the  ball") == original.encode("the  ball") == original.encode("the ball")
    assert made[1].decode(made[1].encode("the  ball")) == "the  ball"
