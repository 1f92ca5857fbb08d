"""Expert files that people have besides single ones: all-in-one checkpoints, official shards, split files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import library
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.library import Slot
from pipeline.checkpoint.probe import probe_checkpoint
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import plain_host
from tests.support import layouts

PREFIX = "model.diffusion_model."
SHARDED = "diffusion_pytorch_model-{:05}-of-00003.safetensors"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_file(bundled.DEMO_HIGH)


@torch.no_grad()
def velocity(expert: Expert) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 36, 1, 8, 8, generator=g), torch.randn(1, 512, expert.text_dim, generator=g)
    expert.resident.load_to_device(0)
    return expert.model(noisy, torch.tensor([500.0]), text, return_dict=False)[0].float()


@pytest.fixture(scope="module")
def original() -> torch.Tensor:
    return velocity(load_expert(bundled.DEMO_HIGH, plain_host()))


def all_in_one(transformer: Weights, path: Path) -> None:
    """As the files in models/checkpoints: the prefixes are those of ComfyUI's Save Checkpoint."""
    text = {f"text_encoders.umt5xxl.transformer.{k}": v for k, v in load_file(bundled.DEMO_TEXT_ENCODER).items()}
    text["text_encoders.umt5xxl.transformer.scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    vae = {f"vae.{k}": v for k, v in load_file(bundled.DEMO_VAE).items()}
    save_file({**text, **vae, **{PREFIX + k: v for k, v in transformer.items()}}, path)


@pytest.mark.parametrize(("layout", "most"), [(layouts.plain(torch.float16), 0.0), (layouts.fp8_legacy, 0.04),
                                              (layouts.fp8_comfy(torch.float8_e4m3fn), 0.04)],
                         ids=["fp16", "fp8 legacy", "fp8"])
def test_the_transformer_of_an_all_in_one_checkpoint(layout, most: float, weights: Weights, original: torch.Tensor,
                                                     tmp_path: Path) -> None:
    layout(weights, tmp_path / "part.safetensors")
    path = tmp_path / "wan2.2-aio.safetensors"
    all_in_one(load_file(tmp_path / "part.safetensors"), path)
    assert library.find_weights([tmp_path], path.name, Slot.HIGH, "checkpoints") == path
    found = velocity(load_expert(path, plain_host()))
    assert (found - original).pow(2).mean().sqrt() / original.std() <= most
    (note,) = [note for note in bundled.load_notes(path, None) if "all-in-one" in note]
    assert "wan2.2-aio.safetensors" in note and "(text_encoders, vae)" in note
    listed = library.list_weights([tmp_path])
    assert path.name in library.fitting_names(listed, Slot.LOW)
    assert path.name not in library.fitting_names(listed, Slot.VAE) + library.fitting_names(listed, Slot.TEXT)


def test_an_all_in_one_checkpoint_of_another_model_is_told_apart(weights: Weights, tmp_path: Path) -> None:
    text_to_video = {**weights, "patch_embedding.weight": torch.zeros(192, 16, 1, 2, 2)}
    all_in_one(text_to_video, tmp_path / "aio.safetensors")
    with pytest.raises(CheckpointError, match=r"aio\.safetensors is a text-to-video model: 16 input channels"):
        library.find_weights([tmp_path], "aio.safetensors", Slot.HIGH, "checkpoints")


def test_no_note_about_a_plain_expert() -> None:
    assert bundled.load_notes(bundled.DEMO_HIGH, bundled.DEMO_LOW) == []


def official_shards(weights: Weights, folder: Path, config: str | None, index: bool) -> None:
    folder.mkdir()
    place = {name: SHARDED.format(number % 3 + 1) for number, name in enumerate(sorted(weights))}
    for file in set(place.values()):
        save_file({name: weights[name] for name in weights if place[name] == file}, folder / file)
    if config is not None:
        (folder / "config.json").write_text(config, "utf-8")
    if index:
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": place}), "utf-8")


@pytest.mark.parametrize("config", ['{"_class_name": "WanModel"}', None], ids=["config", "no config"])
def test_official_folder(config: str | None, weights: Weights, original: torch.Tensor, tmp_path: Path) -> None:
    folder = tmp_path / "high_noise_model"
    official_shards(weights, folder, config, index=True)
    assert library.list_weights([tmp_path]) == {"high_noise_model": folder}
    assert library.fitting_names({"high_noise_model": folder}, Slot.HIGH) == ["high_noise_model"]
    assert probe_checkpoint(folder).noise == "high"
    assert torch.equal(velocity(load_expert(folder, plain_host())), original)


def test_shards_without_an_index(weights: Weights, original: torch.Tensor, tmp_path: Path) -> None:
    """The first one stands for all, and is the only one in the list."""
    folder = tmp_path / "high"
    official_shards(weights, folder, None, index=False)
    first, second = SHARDED.format(1), SHARDED.format(2)
    assert library.fitting_names(library.list_weights([folder]), Slot.HIGH) == [first]
    expert = load_expert(folder / first, plain_host())
    assert torch.equal(velocity(expert), original) and len(expert.files) == 3
    with pytest.raises(CheckpointError, match=rf"{second} is part 2 of 3 of a split file\. Choose its first part, "):
        library.find_weights([folder], second, Slot.HIGH, "diffusion_models")
    (folder / second).unlink()
    with pytest.raises(CheckpointError, match=rf"{first} is part 1 of 3 of a split file, and {second} cannot be found"):
        library.find_weights([folder], first, Slot.HIGH, "diffusion_models")


def test_single_files_beside_an_index_stay_listed(weights: Weights, tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    official_shards(weights, folder, None, index=True)
    save_file(weights, folder / "expert.safetensors")
    assert str(Path("wan", "expert.safetensors")) in library.list_weights([tmp_path])


@pytest.fixture
def split_gguf(weights: Weights, tmp_path: Path) -> list[Path]:
    """Two parts, as llama.cpp's gguf-split names and marks them."""
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "wan2.2_high_noise.gguf", "wan", split_max_tensors=len(weights) // 2 + 1)
    for name, weight in weights.items():
        writer.add_tensor(name, weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(tmp_path.glob("*.gguf"))


def test_split_gguf(split_gguf: list[Path], original: torch.Tensor, tmp_path: Path) -> None:
    first, second = split_gguf
    assert library.fitting_names(library.list_weights([tmp_path]), Slot.HIGH) == [first.name]
    expert = load_expert(first, plain_host())
    assert expert.files == (first, second) and expert.size == first.stat().st_size + second.stat().st_size
    assert (velocity(expert) - original).abs().max() <= 1e-5
    with pytest.raises(CheckpointError, match=rf"{second.name} is part 2 of 2 .* Choose its first part, {first.name}"):
        library.find_weights([tmp_path], second.name, Slot.HIGH, "diffusion_models")
    second.unlink()  # noticed although the first part has not changed
    with pytest.raises(CheckpointError, match=rf"{first.name} is part 1 of 2 .* {second.name} cannot be found"):
        library.find_weights([tmp_path], first.name, Slot.HIGH, "diffusion_models")


def test_a_renamed_part_of_a_split_gguf(split_gguf: list[Path], tmp_path: Path) -> None:
    split_gguf[0].rename(tmp_path / "high.gguf")
    with pytest.raises(CheckpointError, match=r"high\.gguf is one of 2 parts of a split GGUF file under a name of its"):
        library.find_weights([tmp_path], "high.gguf", Slot.HIGH, "diffusion_models")


def test_a_name_like_a_part_of_one(weights: Weights, original: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "expert-00001-of-00001.safetensors"
    save_file(weights, path)
    assert torch.equal(velocity(load_expert(path, plain_host())), original)


def test_settings_of_attention_are_no_weights(weights: Weights, original: torch.Tensor, tmp_path: Path) -> None:
    """Newer Wan files have tensors of JSON for ComfyUI's attention."""
    settings = torch.tensor(list(b'{"attention": "sage"}'), dtype=torch.uint8)
    names = ("comfy_attention.config", "blocks.0.self_attn.comfy_attention.config")
    save_file({**weights, **dict.fromkeys(names[:1], settings), names[1]: settings.clone()}, tmp_path / "e.safetensors")
    library.find_weights([tmp_path], "e.safetensors", Slot.HIGH, "diffusion_models")
    assert torch.equal(velocity(load_expert(tmp_path / "e.safetensors", plain_host())), original)
