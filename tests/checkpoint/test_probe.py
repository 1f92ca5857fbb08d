"""The probe of weight files: every layout, kind and way of storing, each a real small file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import library
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.expert_name import expert_in_name
from pipeline.checkpoint.folder import is_component, weight_files
from pipeline.checkpoint.gguf_file import READABLE, read_gguf, read_gguf_header
from pipeline.checkpoint.kinds import KeyLayout, ModelKind
from pipeline.checkpoint.library import Slot, check_slot
from pipeline.checkpoint.probe import CheckpointFacts, StorageFamily, probe_checkpoint
from pipeline.checkpoint.read import GGUF_DTYPES
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.models import load as bundled

Tensors = dict[str, torch.Tensor]
F16 = torch.float16


def zeros(*shape: int, dtype: torch.dtype = F16) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def expert(in_channels: int = 36, out_channels: int = 16, layers: int = 2) -> Tensors:
    """The outline of a Wan transformer, under the official code's names: what a kind is told by."""
    tensors = {
        "patch_embedding.weight": zeros(128, in_channels, 1, 2, 2), "patch_embedding.bias": zeros(128),
        "text_embedding.0.weight": zeros(128, 64), "time_embedding.0.weight": zeros(128, 256),
        "head.head.weight": zeros(out_channels * 4, 128), "head.modulation": zeros(1, 2, 128),
    }
    for block in range(layers):
        tensors |= {f"blocks.{block}.ffn.0.weight": zeros(256, 128), f"blocks.{block}.norm3.weight": zeros(128),
                    f"blocks.{block}.self_attn.q.weight": zeros(128, 128)}
    return tensors


def diffusers_expert() -> Tensors:
    """The same under diffusers' names."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    return convert_wan_transformer_to_diffusers(expert())


def saved(folder: Path, tensors: Tensors, name: str = "file.safetensors", metadata: Mapping[str, str] | None = None,
          ) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name, metadata=dict(metadata or {}))
    return folder / name


def saved_gguf(path: Path, tensors: Tensors, quantised: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
               *, original: Mapping[str, tuple[int, ...]] | None = None, title: str = "wan") -> Path:
    """A GGUF file with its big matrices quantised and, as llama.cpp's encoders have it, a long vocabulary."""
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_name(title)
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(500)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 500)
    for name, shape in (original or {}).items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        kind = quantised if name.startswith("blocks.") and tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sentence(found: CheckpointFacts, slot: Slot) -> str:
    with pytest.raises(CheckpointError) as caught:
        check_slot(found, slot)
    assert str(caught.value).startswith(found.name)
    assert str(caught.value).endswith(".") and ("Choose" in str(caught.value) or "Use" in str(caught.value))
    return str(caught.value)


# ---- kinds ------------------------------------------------------------------------------------------------------

EXTRA: dict[str, tuple[dict[str, tuple[int, ...]], int, int, ModelKind]] = {
    "i2v": ({}, 36, 16, ModelKind.WAN22_I2V_EXPERT),
    "t2v": ({}, 16, 16, ModelKind.T2V),
    "5b": ({}, 48, 48, ModelKind.TI2V_5B),
    "fun 5b": ({}, 100, 48, ModelKind.TI2V_5B),
    "2.1 i2v": ({"img_emb.proj.0.bias": (1280,)}, 36, 16, ModelKind.WAN21_I2V),
    "2.1 i2v by attention": ({"blocks.0.cross_attn.k_img.weight": (128, 128)}, 36, 16, ModelKind.WAN21_I2V),
    "2.1 fun control": ({"img_emb.proj.0.bias": (1280,)}, 48, 16, ModelKind.FUN_CONTROL),
    "2.2 fun control": ({"ref_conv.weight": (128, 16, 2, 2)}, 52, 16, ModelKind.FUN_CONTROL),
    "2.2 fun camera": ({"control_adapter.conv.weight": (128, 1536, 2, 2)}, 36, 16, ModelKind.FUN_CAMERA),
    "vace": ({"vace_patch_embedding.weight": (128, 96, 1, 2, 2)}, 16, 16, ModelKind.VACE),
    "s2v": ({"casual_audio_encoder.encoder.final_linear.weight": (8, 8)}, 16, 16, ModelKind.S2V),
    "humo": ({"audio_proj.audio_proj_glob_1.layer.bias": (8,)}, 36, 16, ModelKind.HUMO),
    "animate": ({"face_adapter.fuser_blocks.0.k_norm.weight": (8,)}, 36, 16, ModelKind.ANIMATE),
    "scail": ({"patch_embedding_pose.weight": (128, 20, 1, 2, 2)}, 20, 16, ModelKind.SCAIL),
    "wandancer": ({"patch_embedding_global.weight": (128, 36, 1, 2, 2)}, 36, 16, ModelKind.WANDANCER),
    "unheard of": ({"novel_part.weight": (8, 8)}, 36, 16, ModelKind.OTHER_WAN),
    "odd channels": ({}, 40, 16, ModelKind.OTHER_WAN),
}


@pytest.mark.parametrize("case", EXTRA)
def test_kinds_of_wan_transformers(tmp_path: Path, case: str) -> None:
    extra, in_channels, out_channels, kind = EXTRA[case]
    tensors = expert(in_channels, out_channels) | {name: zeros(*shape) for name, shape in extra.items()}
    found = probe_checkpoint(saved(tmp_path, tensors))
    assert found.kind is kind
    assert found.shape is not None and found.shape.in_channels == in_channels
    if kind is ModelKind.WAN22_I2V_EXPERT:
        check_slot(found, Slot.HIGH)
        check_slot(found, Slot.LOW)
    else:
        said = sentence(found, Slot.HIGH)
        if in_channels != 36:
            assert f"{in_channels} input channels, Wan 2.2 I2V-A14B needs 36" in said
    for slot in (Slot.TEXT, Slot.VAE):
        sentence(found, slot)


def test_sizes_of_an_expert(tmp_path: Path) -> None:
    shape = probe_checkpoint(saved(tmp_path, expert(layers=3))).shape
    assert shape is not None
    assert (shape.dim, shape.ffn_dim, shape.num_layers, shape.in_channels, shape.out_channels, shape.text_dim,
            shape.freq_dim, shape.cross_attn_norm) == (128, 256, 3, 36, 16, 64, 256, True)


def test_an_expert_that_lacks_a_size_is_still_one(tmp_path: Path) -> None:
    found = probe_checkpoint(saved(tmp_path, {k: v for k, v in expert().items() if k != "blocks.0.ffn.0.weight"}))
    assert (found.kind, found.shape) == (ModelKind.WAN22_I2V_EXPERT, None)


@pytest.mark.parametrize("keys", [
    ["diffusion_model.blocks.0.self_attn.q.lora_down.weight", "diffusion_model.blocks.0.self_attn.q.lora_up.weight"],
    ["transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer.blocks.0.attn1.to_q.lora_B.weight"],
    ["lora_unet_blocks_0_self_attn_q.lora_down.weight", "lora_unet_blocks_0_self_attn_q.alpha"],
    ["base_model.model.blocks.0.self_attn.q.lora_A.default.weight"],
    ["blocks.0.attn1.to_q.lora.down.weight"],
    ["lycoris_blocks_0_self_attn_q.lokr_w1", "lycoris_blocks_0_self_attn_q.lokr_w2_a"],
    ["diffusion_model.blocks.0.self_attn.q.hada_w1_a"],
    ["diffusion_model.blocks.0.norm3.diff_b", "diffusion_model.patch_embedding.diff"],
    ["diffusion_model.blocks.0.self_attn.q.oft_blocks"],
    ["blocks.0.self_attn.q.dora_scale"],
])
def test_loras_in_every_naming(tmp_path: Path, keys: list[str]) -> None:
    found = probe_checkpoint(saved(tmp_path, {key: zeros(4, 4) for key in keys}))
    assert found.kind is ModelKind.LORA
    assert "is a LoRA, not a Wan 2.2 I2V-A14B expert" in sentence(found, Slot.LOW)


def test_the_bundled_files() -> None:
    kinds = {bundled.DEMO_HIGH: (ModelKind.WAN22_I2V_EXPERT, "high", Slot.HIGH),
             bundled.DEMO_LOW: (ModelKind.WAN22_I2V_EXPERT, "low", Slot.LOW),
             bundled.DEMO_TEXT_ENCODER: (ModelKind.UMT5, None, Slot.TEXT),
             bundled.DEMO_VAE: (ModelKind.VAE_WAN21, None, Slot.VAE)}
    for path, (kind, noise, slot) in kinds.items():
        found = probe_checkpoint(path)
        assert (found.kind, found.noise, found.layout) == (kind, noise, KeyLayout.NATIVE)
        assert (found.storage.family, found.storage.name) == (StorageFamily.PLAIN, "fp16")
        assert (found.size, found.files) == (path.stat().st_size, (path,))
        check_slot(found, slot)
        for other in set(Slot) - {slot, *((Slot.HIGH, Slot.LOW) if kind is ModelKind.WAN22_I2V_EXPERT else ())}:
            sentence(found, other)
    for path in (bundled.DEMO / "loras").glob("*.safetensors"):
        found = probe_checkpoint(path)
        assert (found.kind, found.noise) == (ModelKind.LORA, "high" if "high" in path.name else "low")


def test_vaes(tmp_path: Path) -> None:
    tensors = load_file(bundled.DEMO_VAE)
    five_b = probe_checkpoint(saved(tmp_path, tensors | {"conv2.weight": zeros(48, 48, 1, 1, 1)}))
    assert five_b.kind is ModelKind.VAE_WAN22
    assert "the VAE of Wan 2.2 5B (48 latent channels), not the VAE of Wan 2.1" in sentence(five_b, Slot.VAE)
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    renamed = {k: v.contiguous() for k, v in convert_wan_vae_to_diffusers(tensors).items()}
    diffusers = probe_checkpoint(saved(tmp_path, renamed))
    assert (diffusers.kind, diffusers.layout) == (ModelKind.VAE_WAN21, KeyLayout.DIFFUSERS)
    gguf_vae = probe_checkpoint(saved_gguf(tmp_path / "vae.gguf", {k: v for k, v in tensors.items() if v.dim() <= 2} | {
        "decoder.head.0.gamma": zeros(8), "encoder.conv1.weight": zeros(8, 8), "conv2.weight": zeros(16, 16)}))
    assert "in GGUF, which is read for experts and text encoders only" in sentence(gguf_vae, Slot.VAE)


def test_text_encoders(tmp_path: Path) -> None:
    bias = "layer.0.SelfAttention.relative_attention_bias.weight"
    umt5 = {f"encoder.block.{i}.{bias}": zeros(32, 4) for i in range(2)}
    t5 = {f"encoder.block.0.{bias}": zeros(32, 4), "encoder.block.1.layer.0.SelfAttention.q.weight": zeros(4, 4)}
    official = {f"blocks.{i}.pos_embedding.embedding.weight": zeros(32, 4) for i in range(2)}
    llama = {f"enc.blk.{i}.attn_rel_b.weight": zeros(32, 4) for i in range(2)}
    assert probe_checkpoint(saved(tmp_path, t5)).kind is ModelKind.T5
    assert "is a T5 text encoder, not a UMT5" in sentence(probe_checkpoint(saved(tmp_path, t5)), Slot.TEXT)
    assert "holds no vocabulary (spiece_model)" in sentence(probe_checkpoint(saved(tmp_path, umt5)), Slot.TEXT)
    vocabulary = {"spiece_model": zeros(9, dtype=torch.uint8)}
    check_slot(probe_checkpoint(saved(tmp_path, umt5 | vocabulary)), Slot.TEXT)
    found = probe_checkpoint(saved(tmp_path, official))
    assert (found.kind, found.layout) == (ModelKind.UMT5, KeyLayout.OFFICIAL)
    assert "or put spiece.model beside it" in sentence(found, Slot.TEXT)
    found = probe_checkpoint(saved_gguf(tmp_path / "umt5.gguf", llama))
    assert (found.kind, found.layout) == (ModelKind.UMT5, KeyLayout.GGUF)
    assert "or put spiece.model beside it" in sentence(found, Slot.TEXT)


def test_something_else(tmp_path: Path) -> None:
    found = probe_checkpoint(saved(tmp_path, {"model.layers.0.mlp.weight": zeros(4, 4), "diffusion.weight": zeros(4)}))
    assert found.kind is ModelKind.UNKNOWN
    assert "holds no Wan transformer" in sentence(found, Slot.HIGH)
    assert "holds no UMT5 encoder" in sentence(found, Slot.TEXT)
    assert "holds no Wan VAE" in sentence(found, Slot.VAE)


# ---- layouts and schemes ----------------------------------------------------------------------------------------


def test_prefixed_and_diffusers_layouts(tmp_path: Path) -> None:
    native = probe_checkpoint(saved(tmp_path, expert()))
    prefixed = probe_checkpoint(saved(tmp_path, {f"model.diffusion_model.{k}": v for k, v in expert().items()}))
    diffusers = probe_checkpoint(saved(tmp_path, diffusers_expert()))
    layouts = [native.layout, prefixed.layout, diffusers.layout]
    assert layouts == [KeyLayout.NATIVE, KeyLayout.PREFIXED, KeyLayout.DIFFUSERS]
    assert native.shape == prefixed.shape == diffusers.shape
    assert {found.kind for found in (native, prefixed, diffusers)} == {ModelKind.WAN22_I2V_EXPERT}


def test_a_checkpoint_with_everything_is_the_expert_in_it(tmp_path: Path) -> None:
    tensors = {f"model.diffusion_model.{k}": v for k, v in expert().items()}
    found = probe_checkpoint(saved(tmp_path, tensors | {"first_stage_model.conv1.weight": zeros(4)}))
    assert (found.kind, found.besides) == (ModelKind.WAN22_I2V_EXPERT, ("first_stage_model",))
    assert set(found.header.shapes) == set(tensors)
    check_slot(found, Slot.HIGH)


def quant_marks(tensors: Tensors, settings: dict[str, object], dtype: torch.dtype) -> Tensors:
    """Every block's feed-forward in ComfyUI's present form of quantisation."""
    text = torch.frombuffer(bytearray(json.dumps(settings).encode()), dtype=torch.uint8)
    for layer in [name.removesuffix(".weight") for name in tensors if name.endswith("ffn.0.weight")]:
        tensors |= {f"{layer}.weight": zeros(256, 128, dtype=dtype), f"{layer}.weight_scale": torch.ones(()),
                    f"{layer}.comfy_quant": text.clone()}
    return tensors


@pytest.mark.parametrize(("dtype", "name"), [
    (torch.float16, "fp16"), (torch.bfloat16, "bf16"), (torch.float32, "fp32"),
    (torch.float8_e4m3fn, "fp8_e4m3fn"), (torch.float8_e5m2, "fp8_e5m2"),
])
def test_plain_schemes(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    tensors = {k: v.to(dtype) if v.dim() == 2 else v.float() for k, v in expert().items()}
    storage = probe_checkpoint(saved(tmp_path, tensors)).storage
    assert (storage.family, storage.name) == (StorageFamily.PLAIN, name)


def test_legacy_fp8_scaled(tmp_path: Path) -> None:
    tensors = {k: v.to(torch.float8_e4m3fn) if v.dim() == 2 else v for k, v in expert().items()}
    scales = {"blocks.0.ffn.0.scale_weight": torch.ones(())}
    marker = {"scaled_fp8": zeros(2, dtype=torch.float8_e4m3fn)}
    with_marker = probe_checkpoint(saved(tmp_path, tensors | scales | marker))
    without = probe_checkpoint(saved(tmp_path, tensors | scales))
    for found in (with_marker, without):
        assert (found.kind, found.storage.family) == (ModelKind.WAN22_I2V_EXPERT, StorageFamily.FP8_SCALED)
        assert found.storage.name == "fp8_e4m3fn_scaled"
        check_slot(found, Slot.HIGH)


@pytest.mark.parametrize(("settings", "dtype", "name"), [
    ({"format": "float8_e4m3fn"}, torch.float8_e4m3fn, "float8_e4m3fn"),
    ({"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 256}, torch.int8, "int8_tensorwise+convrot"),
    ({"format": "int8_tensorwise", "params": {"convrot": True}}, torch.int8, "int8_tensorwise+convrot"),
    ({"format": "int8_tensorwise"}, torch.int8, "int8_tensorwise"),
    ({"format": "nvfp4"}, torch.uint8, "nvfp4"),
    ({"format": "mxfp8"}, torch.float8_e4m3fn, "mxfp8"),
])
def test_comfys_present_quantisation(tmp_path: Path, settings: dict[str, object], dtype: torch.dtype,
                                     name: str) -> None:
    found = probe_checkpoint(saved(tmp_path, quant_marks(expert(), settings, dtype)))
    assert (found.kind, found.storage.family, found.storage.name) == (
        ModelKind.WAN22_I2V_EXPERT, StorageFamily.COMFY_QUANT, name)
    metadata = {"_quantization_metadata": json.dumps({"layers": {"blocks.0.ffn.0": settings}})}
    assert probe_checkpoint(saved(tmp_path, expert(), metadata=metadata)).storage.name == name


def test_scales_of_another_kind_are_refused(tmp_path: Path) -> None:
    found = probe_checkpoint(saved(tmp_path, expert() | {"blocks.0.ffn.0.weight_scale": zeros(256)}))
    assert found.storage.family is StorageFamily.OTHER
    assert "which cannot be read" in sentence(found, Slot.HIGH)


@pytest.mark.parametrize("title", ["Wan2.2-I2V-A14B-HighNoise", "wan"])
@pytest.mark.parametrize("stored", ["whole", "noted", "rows", "four"])
def test_gguf_with_every_way_of_storing_the_patch_embedding(tmp_path: Path, stored: str, title: str) -> None:
    tensors, name = expert(), "patch_embedding.weight"
    values = torch.arange(128 * 36 * 4).float().reshape(128, 36, 1, 2, 2)
    flat = {"whole": values, "noted": values.reshape(128 * 36, 4), "rows": values.reshape(128, 144),
            "four": values.reshape(128, 36, 2, 2)}[stored]
    path = saved_gguf(tmp_path / "low.gguf", tensors | {name: flat}, title=title,
                      original={name: tuple(values.shape)} if stored == "noted" else None)
    found = probe_checkpoint(path)
    assert (found.kind, found.layout) == (ModelKind.WAN22_I2V_EXPERT, KeyLayout.GGUF)
    assert found.header.shapes[name] == (128, 36, 1, 2, 2)
    assert (found.shape.ffn_dim, found.shape.text_dim) == (256, 64)
    assert found.noise == ("high" if "High" in title else "low"), "a title counts more than the file's name"
    tensor = read_gguf(path)[name]
    assert (tensor.type, tensor.shape) == ("F32", (128, 36, 1, 2, 2))
    assert torch.equal(tensor.data.view(torch.float32).view(tensor.shape), values)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_0", "Q4_0"])
def test_gguf_types(tmp_path: Path, kind: str) -> None:
    quantised = gguf.GGMLQuantizationType[kind]
    tensors = {k: torch.randn(v.shape) for k, v in expert().items()}
    tensors |= {f"blocks.{i}.self_attn.q.weight": torch.randn(1024, 128) for i in range(2)}
    path = saved_gguf(tmp_path / "file.gguf", tensors, quantised)
    storage = probe_checkpoint(path).storage
    assert (storage.family, storage.name) == (StorageFamily.GGUF, kind)
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    read = read_gguf(path)
    assert read.keys() == reference.keys()
    for name, tensor in read.items():
        assert tensor.type == reference[name].tensor_type.name
        assert np.array_equal(tensor.data.numpy(), reference[name].data.reshape(-1).view(np.uint8))
    values = gguf.quants.dequantize(read["blocks.0.ffn.0.weight"].data.numpy().reshape(256, -1), quantised)
    assert np.abs(values - tensors["blocks.0.ffn.0.weight"].numpy()).max() < 0.5


@pytest.mark.parametrize("kind", ["Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"])
def test_gguf_types_in_blocks_of_256(tmp_path: Path, kind: str) -> None:
    quantised = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantised]
    assert block == 256
    raw = np.random.default_rng(0).integers(0, 255, (64, 2 * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "k.gguf", "wan")
    writer.add_tensor("blocks.0.ffn.0.weight", raw, raw_dtype=quantised)
    writer.add_tensor("after", np.ones(3, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = read_gguf(tmp_path / "k.gguf")
    assert tensors["blocks.0.ffn.0.weight"].shape == (64, 512)
    assert np.array_equal(tensors["blocks.0.ffn.0.weight"].data.numpy(), raw.reshape(-1))
    assert tensors["after"].data.view(torch.float32).tolist() == [1, 1, 1]
    assert probe_checkpoint(tmp_path / "k.gguf").storage.name == kind


def memory(kind: str) -> int:
    """This process's memory in bytes: RssAnon or RssFile (man 5 proc)."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(kind + ":"))) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_gguf_tensors_stay_in_the_file(tmp_path: Path) -> None:
    size = 96 * 2**20
    path = saved_gguf(tmp_path / "big.gguf", {"blocks.0.ffn.0.weight": torch.ones(size // 4, 2)},
                      gguf.GGMLQuantizationType.F16)
    read_gguf(path)  # imports are paid for
    anonymous, mapped = memory("RssAnon"), memory("RssFile")
    data = read_gguf(path)["blocks.0.ffn.0.weight"].data
    assert memory("RssFile") - mapped < size / 10
    assert int(data[::4096].sum()) >= 0
    assert memory("RssFile") - mapped > size / 2
    assert memory("RssAnon") - anonymous < size / 10


# ---- folders ----------------------------------------------------------------------------------------------------


def sharded(folder: Path, tensors: Tensors, count: int = 3) -> Path:
    """A component's folder as diffusers writes it, in shards."""
    names = sorted(tensors)
    files = {name: f"diffusion_pytorch_model-{i % count + 1:05}-of-{count:05}.safetensors" for i, name in
             enumerate(names)}
    for file in sorted(set(files.values())):
        saved(folder, {name: tensors[name].contiguous() for name in names if files[name] == file}, file)
    index = {"metadata": {}, "weight_map": files}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "config.json").write_text("{}", "utf-8")
    return folder


def pipeline_folder(folder: Path) -> Path:
    """A whole pipeline with both experts, a VAE and a text encoder with its tokenizer."""
    for name in ("transformer", "transformer_2"):
        sharded(folder / name, diffusers_expert())
    text = load_file(bundled.DEMO_TEXT_ENCODER)
    del text["spiece_model"]
    for name, tensors in (("vae", load_file(bundled.DEMO_VAE)), ("text_encoder", text)):
        saved(folder / name, tensors, "model.safetensors")
        (folder / name / "config.json").write_text("{}", "utf-8")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"spiece")
    (folder / "model_index.json").write_text("{}", "utf-8")
    return folder


def test_a_folder_of_shards(tmp_path: Path) -> None:
    found = probe_checkpoint(sharded(tmp_path / "HighNoise", diffusers_expert()))
    assert (found.kind, found.layout, found.noise) == (ModelKind.WAN22_I2V_EXPERT, KeyLayout.DIFFUSERS, "high")
    assert len(found.files) == 3 and found.size == sum(file.stat().st_size for file in found.files)
    assert found.header.shapes.keys() == diffusers_expert().keys()
    assert probe_checkpoint(sharded(tmp_path / "official", expert())).layout is KeyLayout.NATIVE


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards", expert())
    (folder / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shards lacks diffusion_pytorch_model-00002.* of 3 shards\. Fetch"):
        probe_checkpoint(folder)


def test_folders_without_one_set_of_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        probe_checkpoint(tmp_path)
    for name in ("a", "b"):
        saved(tmp_path, expert(), f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="holds several"):
        probe_checkpoint(tmp_path)
    index = tmp_path / "broken.safetensors.index.json"
    index.write_text('{"weight_map": {}}', "utf-8")
    with pytest.raises(CheckpointError, match="names no shards"):
        probe_checkpoint(tmp_path)
    index.write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match=r"broken.safetensors.index.json.*cannot be read"):
        probe_checkpoint(tmp_path)


def test_notes_of_macos_beside_the_weights_are_none(tmp_path: Path) -> None:
    def note(*names: str) -> None:
        for name in names:
            (tmp_path / f"._{name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")

    (tmp_path / "config.json").write_text("{}", "utf-8")
    note("model.fp16.safetensors")
    assert not is_component(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        weight_files(tmp_path)
    path = saved(tmp_path, expert(), "model.fp16.safetensors")
    assert is_component(tmp_path) and weight_files(tmp_path) == [path]
    index = tmp_path / "model.fp16.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": path.name}}), "utf-8")
    note(index.name)
    assert weight_files(tmp_path) == [path]


def test_a_whole_pipeline(tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path / "Wan2.2-I2V")
    assert probe_checkpoint(folder).kind is ModelKind.PIPELINE
    assert "is a whole diffusers pipeline" in sentence(probe_checkpoint(folder), Slot.HIGH)
    parts = {Slot.HIGH: "transformer", Slot.LOW: "transformer_2", Slot.TEXT: "text_encoder", Slot.VAE: "vae"}
    known = library.list_weights([tmp_path])
    assert list(known) == ["Wan2.2-I2V"], "its parts and shards are no entries of their own"
    for slot, part in parts.items():
        assert library.fitting_names(known, slot) == ["Wan2.2-I2V"]
        assert library.find_weights([tmp_path], "Wan2.2-I2V", slot, "diffusers") == folder / part
    assert [probe_checkpoint(folder / part).noise for part in parts.values()] == ["high", "low", None, None]
    shutil.rmtree(folder / "transformer_2")
    assert library.fitting_names(known, Slot.LOW) == []
    with pytest.raises(CheckpointError, match=r"Wan2\.2-I2V has no transformer_2 folder"):
        library.find_weights([tmp_path], "Wan2.2-I2V", Slot.LOW, "diffusers")


# ---- files that are no weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "gguf"])
@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"\n<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
    (b"PK\x03\x04\0\0\x08\x08archive/data.pkl", "is a PyTorch pickle"),
    (b"GGUF", "is cut short"),
    (b"GGUF\x03\0\0\0" + b"\xff" * 16, "is cut short"),
    (b"GGUF\x09\0\0\0" + bytes(40), "GGUF file of version 9"),
    (b"short", "cut short"),
])
def test_what_a_failed_download_leaves(tmp_path: Path, content: bytes, said: str, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"file.{suffix}.*{said}"):
        probe_checkpoint(path)


@pytest.mark.parametrize(("slot", "instead"), [
    (Slot.HIGH, "wan2.2_i2v_high_noise_14B_fp16.safetensors"), (Slot.LOW, "wan2.2_i2v_low_noise_14B_fp16.safetensors"),
    (Slot.TEXT, "umt5_xxl_fp16.safetensors"), (Slot.VAE, "wan_2.1_vae.safetensors"),
])
def test_an_official_pickle_gets_the_name_of_the_safetensors(tmp_path: Path, slot: Slot, instead: str) -> None:
    torch.save({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "Wan2.1_VAE.pth")
    with pytest.raises(CheckpointError, match=f"Wan2.1_VAE.pth is a PyTorch pickle.*{instead}"):
        library.find_weights([tmp_path], "Wan2.1_VAE.pth", slot, "vae")


def test_a_header_whose_length_looks_like_a_tag_is_read(tmp_path: Path) -> None:
    """A header of 0x3c20 bytes begins like ` <`."""
    path = saved(tmp_path, expert())
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes((0x3C20).to_bytes(8, "little") + data[8:8 + length].ljust(0x3C20) + data[8 + length:])
    assert probe_checkpoint(path).kind is ModelKind.WAN22_I2V_EXPERT


@pytest.mark.parametrize("layout", ["safetensors", "gguf"])
def test_a_download_that_was_cut_anywhere(tmp_path: Path, layout: str) -> None:
    whole = saved(tmp_path, expert()) if layout == "safetensors" else saved_gguf(tmp_path / "file.gguf", expert())
    data = whole.read_bytes()
    assert probe_checkpoint(whole).kind is ModelKind.WAN22_I2V_EXPERT
    for length in [*range(5, 4000, 97), len(data) // 2, len(data) - 100]:
        whole.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=f"{whole.name} is .*cut short"):
            probe_checkpoint(whole)


@pytest.mark.parametrize("layout", ["safetensors", "gguf"])
def test_damage_is_never_more_than_an_error_of_ours(tmp_path: Path, layout: str) -> None:
    """One damaged file must not take the lists of all others with it."""
    tensors = quant_marks(expert(layers=1), {"format": "int8_tensorwise"}, torch.int8)
    gguf_file = saved_gguf(tmp_path / "file.gguf", expert(layers=1))
    whole = saved(tmp_path, tensors) if layout == "safetensors" else gguf_file
    data = whole.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little") if layout == "safetensors" else data.rindex(b"norm3.weight") + 60
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(data)
        for at in rng.integers(0, head, rng.integers(1, 4)):
            damaged[at] = rng.choice(np.frombuffer(b'\0\x01\x08\x09\xff0019-.[]{}",:en', np.uint8))
        whole.write_bytes(damaged)
        try:
            found = probe_checkpoint(whole)
        except CheckpointError as error:
            refused += 1
            assert whole.name in str(error)
            continue
        for slot in Slot:
            with contextlib.suppress(CheckpointError):
                check_slot(found, slot)
    assert 30 < refused < 400


def test_a_gguf_type_nobody_knows(tmp_path: Path) -> None:
    path = saved_gguf(tmp_path / "new.gguf", expert())
    data = bytearray(path.read_bytes())
    at = data.index(b"head.modulation") + len(b"head.modulation") + 4 + 3 * 8
    assert data[at:at + 4] == bytes(4), "F32"
    data[at] = 200
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"new\.gguf.*header cannot be read \(200"):
        read_gguf_header(path)


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "noise"), [
    ("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", "high"),
    ("Wan2_2-I2V-A14B-LOW_fp8_e4m3fn_scaled_KJ.safetensors", "low"),
    ("Wan2.2-I2V-A14B-HighNoise-Q4_K_M.gguf", "high"),
    ("wan22I2VLow.safetensors", "low"),
    ("I2VHigh.gguf", "high"),
    ("wan22_i2v_HN_Q4_K_M.gguf", "high"), ("wan22_i2v_L_Q8_0.gguf", "low"), ("wan2.2-i2v-Q3_K_L.gguf", None),
    ("wan22_low_angle.safetensors", None),
    ("workflow_slow_below.safetensors", None),
    ("wan_low_vram_highres.safetensors", None),
    ("wan_high_quality_low_noise.safetensors", "low"),
    ("high_and_low.safetensors", None),
    ("wan2.2_high_low_noise.safetensors", None), ("Wan22 High & Low Noise.safetensors", None),
    ("LowHighNoise_v1.safetensors", None), ("wan22_高低噪_v1.safetensors", None),
    ("", None),
])
def test_noise_in_names(name: str, noise: str | None) -> None:
    assert expert_in_name(name) == noise


def test_hints_about_a_pair(tmp_path: Path) -> None:
    high, low = (saved(tmp_path, expert(), f"wan_{noise}_noise.safetensors") for noise in ("high", "low"))
    neutral = saved(tmp_path, expert(), "wan.safetensors")
    for pair in ((None, None), (high, low), (neutral, low)):
        assert bundled.pair_warnings(*pair) == []
    assert bundled.pair_warnings(None, low) == []
    swapped = bundled.pair_warnings(low, high)
    assert [said.partition(" Swap")[0] for said in swapped] == [
        "wan_low_noise.safetensors is named as the low-noise expert but chosen for high noise.",
        "wan_high_noise.safetensors is named as the high-noise expert but chosen for low noise."]
    assert len(bundled.pair_warnings(None, high)) == 1
    (same,) = bundled.pair_warnings(high, high)
    assert same.startswith("wan_high_noise.safetensors is chosen as both experts")


# ---- the library ------------------------------------------------------------------------------------------------


def test_lists_hold_what_fits_and_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    saved(first, expert(), "wan_low_noise.safetensors")
    saved(first / "sub", expert(), "wan_high_noise.safetensors")
    saved(second, expert(), "wan_low_noise.safetensors")
    saved(second, expert(16), "t2v.safetensors")
    saved(second / ".hidden", expert(), "hidden.safetensors")
    saved_gguf(second / "Q8.GGUF", expert())
    sharded(second / "folder", diffusers_expert())
    (second / "broken.safetensors").write_bytes(b"")
    (second / "notes.txt").write_text("weights", "utf-8")
    (second / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    (second / "loop").symlink_to(second, target_is_directory=True)
    roots = [first, second, tmp_path / "not there"]
    known = library.list_weights(roots)
    assert known["wan_low_noise.safetensors"].parent == first
    sub = str(Path("sub") / "wan_high_noise.safetensors")
    assert library.fitting_names(known, Slot.HIGH) == ["folder", "Q8.GGUF", sub, "wan_low_noise.safetensors"]
    assert library.fitting_names(known, Slot.LOW) == ["folder", "Q8.GGUF", "wan_low_noise.safetensors", sub]
    assert library.fitting_names(known, Slot.VAE) == library.fitting_names(known, Slot.TEXT) == []


def test_gguf_types_that_nothing_unpacks_are_not_offered(tmp_path: Path) -> None:
    from diffusers.quantizers.gguf.utils import dequantize_functions

    assert set(READABLE) == set(GGUF_DTYPES) | {kind.name for kind in dequantize_functions}
    saved_gguf(tmp_path / "odd.gguf", expert(), gguf.GGMLQuantizationType.MXFP4)
    assert library.fitting_names(library.list_weights([tmp_path]), Slot.HIGH) == []
    with pytest.raises(CheckpointError, match=r"odd\.gguf is .* with weights in MXFP4, which cannot be read; of GGUF "
                                              r"these can: .*Q4_K.*\. Choose"):
        library.find_weights([tmp_path], "odd.gguf", Slot.HIGH, "diffusion_models")


def test_names_that_are_not_offered(tmp_path: Path) -> None:
    saved(tmp_path / "models", expert(), "wan.bin")
    saved(tmp_path, expert(), "outside.safetensors")
    roots = [tmp_path / "models"]
    assert library.find_weights(roots, "wan.bin", Slot.HIGH, "diffusion_models") == tmp_path / "models" / "wan.bin"
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "nowhere", "", "a\0b"):
        with pytest.raises(CheckpointError, match="is not in ComfyUI's diffusion_models folder"):
            library.find_weights(roots, name, Slot.HIGH, "diffusion_models")
    with pytest.raises(CheckpointError, match=r"wan\.bin is a Wan 2\.2 I2V-A14B expert, not a UMT5"):
        library.find_weights(roots, "wan.bin", Slot.TEXT, "text_encoders")


def test_a_name_that_was_saved_on_windows(tmp_path: Path) -> None:
    path = saved(tmp_path / "models" / "wan", expert(), "high.safetensors")
    saved(tmp_path, expert(), "outside.safetensors")
    roots = [tmp_path / "none", tmp_path / "models"]
    assert library.find_weights(roots, "wan\\high.safetensors", Slot.HIGH, "diffusion_models") == path
    odd = saved(tmp_path / "models", expert(), "wan\\high.safetensors")  # a name of its own on POSIX
    assert library.find_weights(roots, "wan\\high.safetensors", Slot.HIGH, "diffusion_models") == odd
    for name in ("..\\outside.safetensors", "wan\\..\\..\\outside.safetensors", f"\\{tmp_path}\\outside.safetensors"):
        with pytest.raises(CheckpointError, match="is not in ComfyUI's diffusion_models folder"):
            library.find_weights(roots, name, Slot.HIGH, "diffusion_models")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = saved(tmp_path, expert(16))
    known = library.list_weights([tmp_path])
    assert library.fitting_names(known, Slot.HIGH) == []
    saved(tmp_path, expert())
    assert library.fitting_names(known, Slot.HIGH) == [path.name]
    path.write_bytes(path.read_bytes()[:-9])
    assert library.fitting_names(known, Slot.HIGH) == []
    path.unlink()
    assert library.fitting_names(known, Slot.HIGH) == []


def test_what_arrives_beside_a_folder_counts(tmp_path: Path) -> None:
    folder = pipeline_folder(tmp_path / "Wan2.2-I2V")
    for part in ("tokenizer", "transformer_2"):
        (folder / part).rename(tmp_path / part)
    known = {"Wan2.2-I2V": folder}
    assert library.fitting_names(known, Slot.TEXT) == []
    assert library.suitability(folder / "transformer").noise is None, "it may be of another Wan"
    for part in ("tokenizer", "transformer_2"):
        (tmp_path / part).rename(folder / part)
    assert library.fitting_names(known, Slot.TEXT) == ["Wan2.2-I2V"]
    assert library.suitability(folder / "transformer").noise == "high"


def test_two_hundred_big_files_are_read_once_and_only_their_headers(tmp_path: Path) -> None:
    """A 14B expert's header (40 blocks of 27 tensors, 5120 wide) before 28 GB of nothing: the files are sparse."""
    names = read_header(bundled.DEMO_HIGH).shapes
    block = {name: shape for name, shape in names.items() if name.startswith("blocks.0.")}
    shapes = {name: shape for name, shape in names.items() if not name.startswith("blocks.")} | {
        name.replace("blocks.0.", f"blocks.{number}."): shape for number in range(40) for name, shape in block.items()
    }
    width, inner = names["blocks.0.ffn.2.weight"]
    big = {width: 5120, inner: 13824, 6 * width: 6 * 5120}
    entry: dict[str, dict[str, object]] = {}
    end = 0
    for name, shape in shapes.items():
        shape = [big.get(size, size) for size in shape]
        begin, end = end, end + 2 * math.prod(shape)
        entry[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    assert len(entry) > 1000 and end > 25e9
    text = json.dumps(entry).encode()
    for number in range(200):
        with (tmp_path / f"{number}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
    known = library.list_weights([tmp_path])
    assert len(library.fitting_names(known, Slot.HIGH)) == 200
    for path in tmp_path.iterdir():
        was = path.stat()
        with path.open("r+b") as file:
            file.write(bytes(8))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert len(library.fitting_names(known, Slot.HIGH)) == 200, "a file of the same size and time is not read again"
