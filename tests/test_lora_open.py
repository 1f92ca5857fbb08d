"""What a LoRA's link tells of it, and what of the link is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.lora.expert import NO_CLUE
from pipeline.lora.lora import Lora
from pipeline.lora.open import open_lora, shown_name


@pytest.mark.parametrize("source, shown", [
    ("https://a.example/files/my%20lora.safetensors?sig=hidden", "my%20lora.safetensors"),
    ("https://a.example?sig=hidden", "https://a.example"),
    ("https://a.example/?sig=hidden", "https://a.example/"),
    ("owner/repo", "repo"),
    ("folder/file.safetensors", "file.safetensors"),
])
def test_a_link_is_shown_without_what_may_be_secret(source: str, shown: str) -> None:
    assert shown_name(source) == shown


@pytest.mark.parametrize("source, expert, why", [
    ("https://a.example/wan_high_noise.safetensors?X-Amz-Credential=AK/2025/us-east-1/s3/aws4_request", "high",
     "its file name says high noise"),
    ("https://a.example/style.safetensors?sig=ab-L-wan", "both", NO_CLUE),
    ("https://a.example/style.safetensors?sig=a/low/b", "both", NO_CLUE),
    ("https://low.example/style.safetensors", "both", NO_CLUE),
    ("https://a.example/wan2.2/low%20noise/style.safetensors", "low", "its folder's name says low noise"),
])
def test_host_and_query_name_no_expert(source: str, expert: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    name = "diffusion_model.blocks.0.self_attn.q"
    save_file({f"{name}.lora_down.weight": torch.zeros(4, 256), f"{name}.lora_up.weight": torch.zeros(256, 4)}, path)

    def fetch(source: str, sha256: str | None, inspect) -> Path:
        data = path.read_bytes()
        inspect(lambda offset, length: data[offset:offset + length], len(data))
        return path

    file = open_lora(Lora(source), lambda name: None, fetch, lambda: None, lambda facts: None)
    assert (file.lora.expert, file.why) == (expert, why)
