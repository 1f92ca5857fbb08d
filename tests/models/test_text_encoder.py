"""Prompts to embeddings: ids, padding, length."""

from __future__ import annotations

import pytest
import torch

from pipeline.models import load as bundled
from pipeline.models.host import plain_host
from pipeline.models.text_encoder import TextEncoder, count_tokens, encode_prompts
from pipeline.models.umt5 import load_text_encoder
from pipeline.request import RequestError


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(*load_text_encoder(bundled.DEMO_TEXT_ENCODER, plain_host()))


def test_embeddings_are_padded_with_zeros(encoder: TextEncoder) -> None:
    count = count_tokens(encoder.tokenize("the camera pans left"))
    assert count == len(encoder.tokenizer.encode("the camera pans left")) + 1
    (embeddings, extra), = encoder.encode_from_tokens_scheduled(encoder.tokenize("the camera pans left"))
    assert embeddings.shape == (1, 512, 128) and extra == {}
    assert (embeddings[0, :count].abs().sum(-1) > 0).all()
    assert not embeddings[0, count:].any()


def test_padding_does_not_change_the_words(encoder: TextEncoder) -> None:
    """The encoder must not attend to padding: the same text unpadded has the same embeddings."""
    ids = torch.tensor([[*encoder.tokenizer.encode("the ball moves up"), 1]])
    with torch.no_grad():
        bare = encoder.resident.module(input_ids=ids).last_hidden_state
    padded = encoder.encode_from_tokens_scheduled(encoder.tokenize("the ball moves up"))[0][0]
    torch.testing.assert_close(padded[:, : ids.shape[1]], bare, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("which", ["prompt", "negative prompt"])
def test_too_long(encoder: TextEncoder, which: str) -> None:
    long = "left " * 600
    count = count_tokens(encoder.tokenize(long))
    texts = ("up", long) if which == "negative prompt" else (long, "")
    with pytest.raises(RequestError, match=f"The {which} is {count} tokens long"):
        encode_prompts(encoder, *texts)


def test_the_vectors_of_an_embedding_count_as_tokens() -> None:
    """As ComfyUI's tokenizers give them for `embedding:name`: tensors (comfy/sd1_clip.py), among ids and padding."""
    batch = [(5, 1.0), (torch.ones(128), 1.0), (torch.zeros(128), 1.0), (1, 1.0), *[(0, 1.0)] * 508]
    assert count_tokens({"umt5xxl": [batch]}) == 4


def test_the_encoder_of_another_model() -> None:
    """Embeddings of T5-XXL, which Flux and others have, are as wide as those of UMT5-XXL."""

    class T5:
        def tokenize(self, text: str) -> dict:
            return {"t5xxl": [[(1, 1.0)]]}

    with pytest.raises(RequestError, match=r"clip is the text encoder of another model \(t5xxl\)"):
        encode_prompts(T5(), "the camera pans left", "")


def test_no_encoder() -> None:
    with pytest.raises(RequestError, match="There is no text encoder"):
        encode_prompts(None, "up", "")


def test_any_text_is_readable(encoder: TextEncoder) -> None:
    """Byte fallback: no character is unknown."""
    ids = [i for i, _ in encoder.tokenize("Ein Ballon über \u6771\u4eac \N{BALLOON}")["umt5xxl"][0]]
    assert 2 not in ids
