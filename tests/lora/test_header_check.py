"""What a LoRA's header tells before the run: the shapes that it is held against are those of the models."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from diffusers import WanTransformer3DModel

from pipeline.checkpoint.kinds import TransformerShape
from pipeline.checkpoint.probe import probe_checkpoint
from pipeline.lora.apply import original_name
from pipeline.lora.header_check import A14B, DEMO, expert_shapes
from pipeline.models.expert import HEAD_DIM
from pipeline.models.load import DEMO_HIGH


@pytest.mark.parametrize("sizes", [A14B, DEMO], ids=["A14B", "bundled"])
def test_shapes_are_those_of_diffusers_model(sizes: TransformerShape) -> None:
    given = asdict(sizes)
    heads = given.pop("dim") // HEAD_DIM
    with torch.device("meta"):
        model = WanTransformer3DModel(num_attention_heads=heads, attention_head_dim=HEAD_DIM, **given)
    assert expert_shapes(sizes) == {original_name(name).removesuffix(".weight"): tuple(value.shape)
                                    for name, value in model.named_parameters()}


def test_sizes_of_the_bundled_experts_are_those_of_their_file() -> None:
    assert probe_checkpoint(DEMO_HIGH).shape == DEMO
