"""Weight files: what loads, and that everything else is refused with one sentence that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.safetensors_file import read_header, read_tensors
from pipeline.models import load as bundled
from pipeline.models.expert import load_expert
from pipeline.models.host import plain_host
from pipeline.models.umt5 import load_text_encoder
from pipeline.models.vae import load_vae


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(bundled.DEMO_HIGH)


def test_bundled_model_is_small_and_whole() -> None:
    files = [bundled.DEMO_HIGH, bundled.DEMO_LOW, bundled.DEMO_TEXT_ENCODER, bundled.DEMO_VAE]
    assert sum(f.stat().st_size for f in bundled.DEMO.rglob("*") if f.is_file()) < 40e6
    for file in files:
        assert read_header(file).shapes


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    (b"just some text that is longer than eight bytes", "not a safetensors file"),
    ((20).to_bytes(8, "little") + b"not json at all.....", "header cannot be read"),
    ((2).to_bytes(8, "little") + b"[]", "header cannot be read"),
    (b"abc", "not a safetensors file"),
])
def test_files_that_are_something_else(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "expert.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"expert.safetensors.*{said}"):
        load_expert(file, plain_host())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_expert(tmp_path / "gone.safetensors", plain_host())


def test_a_file_that_went_after_it_was_checked(tmp_path: Path) -> None:
    """As when a disk is unplugged: that is no lack of memory."""
    with pytest.raises(CheckpointError, match=r"gone\.safetensors does not exist\. Check the name"):
        read_tensors(tmp_path / "gone.safetensors")


def test_truncated_download(tmp_path: Path) -> None:
    file = tmp_path / "cut.safetensors"
    file.write_bytes(bundled.DEMO_HIGH.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cut short"):
        load_expert(file, plain_host())


def test_other_models_are_named(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    cases = {
        "text-to-video": {**weights, "patch_embedding.weight": weights["patch_embedding.weight"][:, :16].contiguous()},
        "5B": {**weights, "patch_embedding.weight": torch.zeros(256, 48, 1, 2, 2)},
        "Wan 2.1": {**weights, "img_emb.proj.0.bias": torch.zeros(4)},
        "LoRA": {"lora_unet_blocks_0.lora_down.weight": torch.zeros(4, 4)},
    }
    for said, tensors in cases.items():
        file = tmp_path / f"{said.split()[0]}.safetensors"
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=said):
            load_expert(file, plain_host())


def test_every_key_must_be_there_and_be_used(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file({k: v for k, v in weights.items() if k != "blocks.2.ffn.0.weight"}, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.2\.ffn\.net\.0\.proj\.weight missing"):
        load_expert(tmp_path / "less.safetensors", plain_host())
    save_file({**weights, "blocks.0.ffn.0.scale_weight": torch.ones(1)}, tmp_path / "more.safetensors")
    with pytest.raises(CheckpointError, match="scale_weight not known"):
        load_expert(tmp_path / "more.safetensors", plain_host())


def test_prefixed_file_is_the_same_model(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file({f"model.diffusion_model.{k}": v for k, v in weights.items()}, tmp_path / "prefixed.safetensors")
    bare, prefixed = (load_expert(f, plain_host()).model.state_dict()
                      for f in (bundled.DEMO_HIGH, tmp_path / "prefixed.safetensors"))
    assert bare.keys() == prefixed.keys()
    assert all(torch.equal(bare[k], prefixed[k]) for k in bare)


@pytest.mark.parametrize(("kind", "error"), [("F16", 0.0), ("BF16", 0.01), ("Q8_0", 0.01), ("Q4_0", 0.2)])
def test_gguf_file_is_the_same_model(tmp_path: Path, weights: dict[str, torch.Tensor], kind: str, error: float) -> None:
    writer = gguf.GGUFWriter(tmp_path / "expert.gguf", "wan")
    for name, tensor in weights.items():
        matrix = name.startswith("blocks.") and name.endswith(".weight") and tensor.dim() == 2
        stored = gguf.GGMLQuantizationType[kind if matrix else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    text = torch.randn(1, 512, weights["text_embedding.0.weight"].shape[1])
    given = {"hidden_states": torch.randn(1, 36, 2, 8, 8), "timestep": torch.tensor([950.0]),
             "encoder_hidden_states": text, "return_dict": False}
    plain, packed = (load_expert(f, plain_host()).model(**given)[0]
                     for f in (bundled.DEMO_HIGH, tmp_path / "expert.gguf"))
    assert (packed - plain).abs().max() <= error * plain.abs().max() + 1e-5


@pytest.mark.parametrize("said", ["", "[", "3", "[[[1, 2, 3]], [0, 0, 0]]", "[[[1, 2], [3]], [0, 0, 0]]",
                                  '{"a": 1, "b": 2}'])
def test_preview_colours_that_make_no_sense_are_left_out(tmp_path: Path, weights: dict[str, torch.Tensor], said: str,
                                                         ) -> None:
    save_file(weights, tmp_path / "expert.safetensors", {"latent_rgb": said})
    assert load_expert(tmp_path / "expert.safetensors", plain_host()).latent_rgb is None


def test_block_weights_keep_the_files_dtype() -> None:
    expert = load_expert(bundled.DEMO_HIGH, plain_host())
    assert expert.model.blocks[0].ffn.net[0].proj.weight.dtype == torch.float16
    assert expert.model.blocks[0].scale_shift_table.dtype == torch.float32
    embedder = expert.model.condition_embedder.time_embedder
    assert (embedder.linear_1.weight.dtype, embedder.linear_2.weight.dtype) == (torch.float32, torch.float16)
    assert expert.compute_dtype == torch.float32
    assert expert.model.config.num_attention_heads * 128 == 256


def test_wrong_vae_and_text_encoder() -> None:
    with pytest.raises(CheckpointError, match=r"is a Wan 2\.2 I2V-A14B expert, not the VAE"):
        load_vae(bundled.DEMO_HIGH, plain_host())
    with pytest.raises(CheckpointError, match=r"is the VAE of Wan 2\.1, not a UMT5 text encoder"):
        load_text_encoder(bundled.DEMO_VAE, plain_host())
    with pytest.raises(CheckpointError, match=r"is the VAE of Wan 2\.1, not a Wan 2\.2 I2V-A14B expert"):
        load_expert(bundled.DEMO_VAE, plain_host())


def test_vocabulary_is_required(tmp_path: Path) -> None:
    tensors = load_file(bundled.DEMO_TEXT_ENCODER)
    del tensors["spiece_model"]
    save_file(tensors, tmp_path / "te.safetensors")
    with pytest.raises(CheckpointError, match="holds no vocabulary"):
        load_text_encoder(tmp_path / "te.safetensors", plain_host())
    save_file({**tensors, "spiece_model": torch.arange(99, dtype=torch.uint8)}, tmp_path / "te.safetensors")
    with pytest.raises(CheckpointError, match="vocabulary that cannot be read"):
        load_text_encoder(tmp_path / "te.safetensors", plain_host())


def test_layout_is_that_of_the_real_files() -> None:
    """Original Wan names, so that other loaders read the bundled files too."""
    header = read_header(bundled.DEMO_LOW)
    assert {"patch_embedding.weight", "blocks.0.self_attn.q.weight", "blocks.0.cross_attn.norm_k.weight",
            "blocks.0.modulation", "blocks.0.norm3.weight", "head.head.weight", "head.modulation",
            "time_projection.1.weight", "text_embedding.0.weight"} <= set(header.shapes)
    text_dim = json.loads(header.metadata["config"])["transformer"]["text_dim"]
    assert text_dim == header.shapes["text_embedding.0.weight"][1]
    assert set(header.dtypes.values()) == {"F16"}
