"""The demo's text side: a sentencepiece vocabulary of its prompts and a tiny UMT5 encoder.

A clip's prompt reaches the experts as UMT5 embeddings padded with zeros to 512 tokens, as for the real Wan.
All padded tokens have the same key and value, so that training stands in one token of weight 512 - n for them:
softmax over n tokens and 512 - n equal ones is softmax over n + 1 with log(512 - n) added to the last score.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import sentencepiece
import torch
from clips import MOTIONS, NEGATIVE_PROMPTS, SPEEDS
from training_attention import TrainingAttention
from transformers import UMT5Config, UMT5EncoderModel

CONTEXT = 512
TOKENS = 24  # what the longest prompt of the training takes, its end included, with room to spare
LORA_WORDS = ["it snows", "snow falls", "neon glow", "sepia", "grey", "colours drain away", "a person", "the picture"]


def train_tokenizer() -> bytes:
    """A unigram sentencepiece model with byte fallback and T5's ids (pad 0, end 1, unknown 2)."""
    lines = [f"{text} {speed}".strip() for texts in MOTIONS.values() for text in texts for speed in SPEEDS]
    lines += [p for p in NEGATIVE_PROMPTS if p] + LORA_WORDS
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.txt")
        corpus.write_text("\n".join(line for line in lines for _ in range(20)), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(Path(folder, "spiece")), vocab_size=448, model_type="unigram",
            byte_fallback=True, hard_vocab_limit=False, normalization_rule_name="identity", num_threads=1,
            pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
        return Path(folder, "spiece.model").read_bytes()


def new_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=vocabulary, d_model=128, d_kv=32, d_ff=256, num_layers=2,
                                       num_heads=4, dropout_rate=0.0))


def embed(tokenizer: sentencepiece.SentencePieceProcessor, encoder: UMT5EncoderModel, prompts: list[str],
          ) -> torch.Tensor:
    """Prompts -> embeddings (B, TOKENS + 1, 128), zero after each prompt's end; sets TrainingAttention's bias too."""
    ids = [[*tokenizer.encode(p), 1] for p in prompts]
    tokens = torch.zeros(len(ids), TOKENS + 1, dtype=torch.long)
    for row, i in zip(tokens, ids, strict=True):
        row[: len(i)] = torch.tensor(i)
    mask = (tokens != 0).long()
    bias = torch.zeros(len(ids), 1, 1, TOKENS + 1)
    bias[..., -1] = math.log(CONTEXT - TOKENS)
    TrainingAttention.bias = bias
    return encoder(tokens, mask).last_hidden_state * mask[..., None]
