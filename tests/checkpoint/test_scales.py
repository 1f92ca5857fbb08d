"""Files whose scales, formats or VAE are not the usual ones: read, or named before the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import library
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.library import Slot
from pipeline.checkpoint.probe import StorageFamily, probe_checkpoint
from pipeline.checkpoint.scales import block_sizes
from pipeline.models import load as bundled
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import plain_host
from tests.support.comfy_in_process import comfy_host

Weights = dict[str, torch.Tensor]
FP8 = torch.float8_e4m3fn
HOSTS = {"comfyui": lambda: comfy_host(), "plain": plain_host}


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_file(bundled.DEMO_HIGH)


def packed(weights: Weights, dtype: torch.dtype, name: str, rows: int, columns: int) -> tuple[Weights, Weights]:
    """The layers of the blocks with a scale a block of that many rows and columns, 0: all; and what they stand for.

    The reference is computed number by number in float64, not by repeating scales as the code does.
    """
    found, meant = dict(weights), dict(weights)
    most = 127 if dtype == torch.int8 else 448
    for key in [k for k, v in weights.items() if k.startswith("blocks.") and v.ndim == 2 and k.endswith(".weight")]:
        weight = weights[key].double()
        high, wide = rows or weight.shape[0], columns or weight.shape[1]
        counts = -(-weight.shape[0] // high), -(-weight.shape[1] // wide)
        scale, whole = torch.zeros(counts), torch.zeros_like(weight)
        stored = torch.zeros(weight.shape, dtype=dtype)
        for i in range(counts[0]):
            for j in range(counts[1]):
                place = slice(i * high, (i + 1) * high), slice(j * wide, (j + 1) * wide)
                scale[i, j] = weight[place].abs().max() / most
                block = weight[place] / scale[i, j].double()
                stored[place] = (block.round() if dtype == torch.int8 else block.float()).to(dtype)
                whole[place] = stored[place].double() * scale[i, j].double()
        found[key], meant[key] = stored, whole.float()
        found[key.removesuffix(".weight") + name] = scale
    return found, meant


@torch.no_grad()
def velocity(expert: Expert) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 36, 1, 8, 8, generator=g), torch.randn(1, 512, expert.text_dim, generator=g)
    expert.resident.load_to_device(0)
    return expert.model(noisy, torch.tensor([500.0]), text, return_dict=False)[0].float()


SCALES = {
    "one a matrix": (FP8, ".weight_scale", 0, 0), "one a row": (FP8, ".weight_scale", 1, 0),
    "one a row, Kijai's name": (FP8, ".scale_weight", 1, 0), "blocks of 128": (FP8, ".weight_scale_inv", 128, 128),
    "blocks of 64": (FP8, ".weight_scale", 64, 64), "e5m2, one a row": (torch.float8_e5m2, ".weight_scale", 1, 0),
    "int8, one a row": (torch.int8, ".weight_scale", 1, 0),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", SCALES)
def test_scales_are_multiplied_out(name: str, host: str, weights: Weights, tmp_path: Path) -> None:
    found, meant = packed(weights, *SCALES[name])
    if "Kijai" in name:
        found["scaled_fp8"] = torch.zeros(0, dtype=FP8)
    save_file(found, tmp_path / "expert.safetensors")
    save_file(meant, tmp_path / "meant.safetensors")
    library.find_weights([tmp_path], "expert.safetensors", Slot.HIGH, "diffusion_models")
    right = velocity(load_expert(tmp_path / "meant.safetensors", plain_host()))
    assert (velocity(load_expert(tmp_path / "expert.safetensors", HOSTS[host]())) - right).abs().max() <= 1e-4


def test_rows_as_a_vector(weights: Weights, tmp_path: Path) -> None:
    found, meant = packed(weights, FP8, ".weight_scale", 1, 0)
    found = {key: value.flatten() if key.endswith("_scale") else value for key, value in found.items()}
    save_file(found, tmp_path / "expert.safetensors")
    save_file(meant, tmp_path / "meant.safetensors")
    wanted, read = (velocity(load_expert(tmp_path / name, plain_host()))
                    for name in ("meant.safetensors", "expert.safetensors"))
    assert (read - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize(("matrix", "scale", "sizes"), [
    ((300, 200), (), (300, 200)), ((300, 200), (1,), (300, 200)), ((300, 200), (300, 1), (1, 200)),
    ((300, 200), (300,), (1, 200)), ((300, 200), (3, 2), (128, 128)), ((13824, 5120), (108, 40), (128, 128)),
    ((256, 256), (4, 4), (64, 64)), ((300, 200), (7, 1), None), ((300,), (300,), None), ((8, 8), (2, 2, 2), None),
])
def test_block_sizes(matrix: tuple[int, ...], scale: tuple[int, ...], sizes: tuple[int, int] | None) -> None:
    assert block_sizes(matrix, scale) == sizes


def test_scales_that_fit_nothing_are_named_before_the_run(weights: Weights, tmp_path: Path) -> None:
    found, _ = packed(weights, FP8, ".weight_scale", 1, 0)
    name = next(key for key in found if key.endswith("_scale"))
    save_file({**found, name: torch.ones(7)}, tmp_path / "expert.safetensors")
    assert library.fitting_names(library.list_weights([tmp_path]), Slot.HIGH) == []
    with pytest.raises(CheckpointError, match=rf"expert\.safetensors .* form that is not known \({name}\)"):
        library.find_weights([tmp_path], "expert.safetensors", Slot.HIGH, "diffusion_models")


def in_comfys_format(weights: Weights, path: Path, entry: dict[str, object], *, in_header: bool) -> None:
    found, _ = packed(weights, FP8, ".weight_scale", 0, 0)
    layers = [key.removesuffix(".weight_scale") for key in found if key.endswith("_scale")]
    found |= {f"{layer}.weight_scale": found[f"{layer}.weight_scale"].reshape(()) for layer in layers}
    if in_header:
        save_file(found, path, {"_quantization_metadata": json.dumps({"layers": dict.fromkeys(layers, entry)})})
        return
    text = torch.tensor(list(json.dumps(entry).encode()), dtype=torch.uint8)
    save_file({**found, **{f"{layer}.comfy_quant": text.clone() for layer in layers}}, path)


@pytest.mark.parametrize("in_header", [True, False])
def test_settings_without_a_format_are_named_before_the_run(in_header: bool, weights: Weights, tmp_path: Path) -> None:
    in_comfys_format(weights, tmp_path / "expert.safetensors", {"full_precision_matrix_mult": True},
                     in_header=in_header)
    with pytest.raises(CheckpointError, match=r"expert\.safetensors .* settings name no format"):
        library.find_weights([tmp_path], "expert.safetensors", Slot.HIGH, "diffusion_models")


@pytest.mark.parametrize("in_header", [True, False])
def test_formats_that_this_comfyui_lacks_are_named_before_the_run(in_header: bool, weights: Weights, tmp_path: Path,
                                                                  ) -> None:
    path = tmp_path / "expert.safetensors"
    in_comfys_format(weights, path, {"format": "int3_novel"}, in_header=in_header)
    known = library.list_weights([tmp_path])
    readable = frozenset({"float8_e4m3fn"})
    assert library.fitting_names(known, Slot.HIGH, readable) == []
    with pytest.raises(CheckpointError, match=r"expert\.safetensors has weights in int3_novel, which this ComfyUI"):
        library.find_weights([tmp_path], path.name, Slot.HIGH, "diffusion_models", readable)
    in_comfys_format(weights, path, {"format": "float8_e4m3fn"}, in_header=in_header)
    assert library.fitting_names(known, Slot.HIGH, readable) == [path.name]


def test_comfyuis_formats_are_asked() -> None:
    comfy_host()
    from pipeline.host.formats import readable_formats

    assert {"float8_e4m3fn", "nvfp4", "int8_tensorwise"} <= readable_formats()


def test_errors_of_a_damaged_file_name_it(weights: Weights, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "expert.safetensors", {"_quantization_metadata": "{"})
    with pytest.raises(CheckpointError, match=r"expert\.safetensors"):
        load_expert(tmp_path / "expert.safetensors", plain_host())


@pytest.mark.parametrize(("change", "shown"), [
    ({"decoder.head.2.weight": (12, 16, 3, 3, 3), "decoder.head.2.bias": (12,)}, "12 output channels, not 3"),
    ({"decoder.head.0.gamma": (64, 1, 1, 1)}, "an encoder 16 wide, a decoder 64"),
], ids=["upscaling", "wider"])
def test_vaes_for_other_uses_are_named_before_the_run(change: dict, shown: str, tmp_path: Path) -> None:
    save_file({**load_file(bundled.DEMO_VAE), **{k: torch.zeros(v) for k, v in change.items()}},
              tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=rf"vae\.safetensors is a VAE made for other uses .* \({shown}\)"):
        library.find_weights([tmp_path], "vae.safetensors", Slot.VAE, "vae")


def test_storage_is_named(weights: Weights, tmp_path: Path) -> None:
    save_file(packed(weights, FP8, ".weight_scale_inv", 128, 128)[0], tmp_path / "expert.safetensors")
    storage = probe_checkpoint(tmp_path / "expert.safetensors").storage
    assert (storage.family, storage.name) == (StorageFamily.SCALES, "fp8_e4m3fn with a scale for each row or block")
