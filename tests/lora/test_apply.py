"""Changes of LoRA files to an expert: every format, on plain and packed weights, against the sum worked out here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.quantised import dequantise
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.lora.apply import apply_loras, original_name
from pipeline.lora.header_check import predict_match
from pipeline.lora.match import LoraFile, describe_match
from pipeline.models import load as bundled
from pipeline.models.condition import encode_first_frame
from pipeline.models.expert import Expert, load_expert
from pipeline.models.host import CastingLinear, plain_host
from pipeline.models.load import Wan22Model
from pipeline.models.vae import WanVAE, load_vae
from pipeline.request import Lora, RequestError, Sampling
from pipeline.sampling.sampler import sample
from tests.support import layouts, lora_files
from tests.support.comfy_in_process import comfy_host
from tests.support.lora_files import lora_file

BASES = {"fp16": layouts.plain(torch.float16), "fp8_scaled": layouts.fp8_comfy(torch.float8_e4m3fn),
         "fp8 by rows": layouts.fp8_by_rows, "GGUF Q8_0": layouts.gguf_file("Q8_0")}


@torch.no_grad()
def velocity(expert: Expert) -> torch.Tensor:
    """The expert's answer to fixed noise and text, (1, 16, 3, 12, 8), its own patches in force."""
    g = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 36, 3, 12, 8, generator=g), torch.randn(1, 512, expert.text_dim, generator=g)
    expert.resident.load_to_device(0, expert.patches)
    return expert.model(noisy, torch.tensor([500.0]), text, return_dict=False)[0].float()


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.std()).item()


class Base:
    """An expert in one layout, inside ComfyUI, and its weights unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = comfy_host()
        self.expert = load_expert(path, self.host)
        self.original = velocity(self.expert)
        unpacked = load_expert(path, plain_host()).model
        self.weights = {name: value.float() for name, value in unpacked.named_parameters()}
        self.weights |= {f"{name}.weight": dequantise(layer.quantised, torch.float32)
                         for name, layer in unpacked.named_modules()
                         if isinstance(layer, CastingLinear) and layer.quantised is not None}

    def changed(self, changes: dict[str, torch.Tensor]) -> Expert:
        """The expert with the changes (parameter name -> its own) added to its weights in float32."""
        expert = load_expert(self.path, plain_host())
        for name, delta in changes.items():
            module = expert.model.get_submodule(name.rpartition(".")[0]) if "." in name else expert.model
            if isinstance(module, CastingLinear) and name.endswith(".weight"):
                module.quantised = None
            setattr(module, name.rpartition(".")[2], nn.Parameter(self.weights[name] + delta, requires_grad=False))
        return expert

    def with_change(self, changes: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the answer of that expert."""
        return velocity(self.changed(changes))

    def with_lora(self, *files: LoraFile) -> tuple[Expert, list[str]]:
        model, report = apply_loras(Wan22Model(self.expert, self.expert), files)
        assert all(map(str.startswith, report, [said for file in files for said in foreseen(file)])), "told beforehand"
        return model.high, report


def foreseen(file: LoraFile) -> list[str]:
    """Return what the header alone tells of the matches."""
    settled, matches = predict_match(file.lora, read_header(file.path), file.path.name)
    return [describe_match(settled, index, match) for index, match in matches.items()]


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    path = tmp_path_factory.mktemp("base") / ("expert.gguf" if "GGUF" in request.param else "expert.safetensors")
    BASES[request.param](load_file(bundled.DEMO_HIGH), path)
    return Base(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return Base(bundled.DEMO_HIGH)


def weights(changes: lora_files.Changes, scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {f"{module}.weight": scale * change.matrix for module, change in changes.items()}


@pytest.mark.parametrize("name", lora_files.FORMATS)
def test_format(name: str, base: Base, tmp_path: Path) -> None:
    changes = lora_files.changes_of(base.weights)
    wanted = base.with_change(weights(changes))
    assert apart(base.original, wanted) > 0.1
    expert, report = base.with_lora(lora_file(lora_files.FORMATS[name](changes), tmp_path))
    assert apart(velocity(expert), wanted) < 1e-4
    count = len(lora_files.FORMATS[name](changes))
    assert report[0].startswith(f"0.safetensors, scale 1, high-noise expert: {count} of {count} keys")
    assert torch.equal(velocity(base.expert), base.original)


def check_same_video(base: Base, formats: Iterable[str], folder: Path) -> None:
    """A clip of 32x32 pixels and 5 frames with LoRAs of these formats against one with changed weights, in pixels."""
    vae = WanVAE(*load_vae(bundled.DEMO_VAE, plain_host()))
    g = torch.Generator().manual_seed(0)
    first = encode_first_frame(vae, torch.rand(1, 32, 32, 3, generator=g), 32, 32, 5)
    text = [[torch.randn(1, 512, base.expert.text_dim, generator=g), {}]]

    def video(model: Wan22Model) -> torch.Tensor:
        return vae.decode(sample(model, text, text, first, Sampling(0, num_inference_steps=4, guidance_scale=1.0)))

    changes = lora_files.changes_of(base.weights)
    changed, plain = base.changed(weights(changes)), Wan22Model(base.expert, base.expert)
    wanted = video(Wan22Model(changed, changed))
    assert (video(plain) - wanted).abs().max() > 0.02
    for name in formats:
        file = lora_file(lora_files.FORMATS[name](changes), folder, expert="both")
        model, _ = apply_loras(plain, [file])
        assert (video(model) - wanted).abs().max() < 1e-3, name


def test_every_format_gives_the_same_video(plain: Base, tmp_path: Path) -> None:
    check_same_video(plain, lora_files.FORMATS, tmp_path)


@pytest.mark.parametrize("base", ["fp8_scaled", "GGUF Q8_0"], indirect=True)
def test_every_kind_of_change_gives_the_same_video_on_packed_weights(base: Base, tmp_path: Path) -> None:
    check_same_video(base, ("lightx2v", "LoKr", "LoHa", "diff"), tmp_path)


@pytest.mark.parametrize("names, by_column", [("dora_scale", False), ("dora_scale", True),
                                              ("lora_magnitude_vector", False)], ids=["rows", "columns", "PEFT"])
def test_dora(names: str, by_column: bool, base: Base, tmp_path: Path) -> None:
    file, effect = lora_files.dora(lora_files.changes_of(base.weights), base.weights, names, by_column)
    for scale in (1.0, 0.5):
        expert, report = base.with_lora(lora_file(file, tmp_path, scale))
        wanted = base.with_change({name: scale * delta for name, delta in effect.items()})
        assert apart(velocity(expert), wanted) < 1e-4
        assert f"{len(file)} of {len(file)} keys" in report[0]


def test_scale_partial_files_and_stacks(base: Base, tmp_path: Path) -> None:
    attention, ffn = (lora_files.changes_of(base.weights, part) for part in ("attn1", "ffn"))
    assert attention and ffn
    write = lora_files.FORMATS["musubi"]
    expert, report = base.with_lora(lora_file(write(attention), tmp_path, 0.5), lora_file(write(ffn), tmp_path, -0.25),
                                    lora_file(write(ffn), tmp_path, 1.0))
    wanted = weights(attention, 0.5) | weights(ffn, 0.75)
    assert apart(velocity(expert), base.with_change(wanted)) < 1e-4
    assert len(report) == 3


def test_scale_0_is_no_lora_at_all(base: Base, tmp_path: Path) -> None:
    changes = lora_files.changes_of(base.weights)
    expert, _ = base.with_lora(lora_file(lora_files.FORMATS["lightx2v"](changes), tmp_path, 0.0))
    assert torch.equal(velocity(expert), base.original)


def test_changes_beside_the_linear_layers(base: Base, tmp_path: Path) -> None:
    """lightx2v's distilled LoRAs and Kijai's extracted ones hold differences of biases, norms and embeddings too."""
    chosen = ("patch_embedding.weight", "patch_embedding.bias", "proj_out.weight", "proj_out.bias",
              "scale_shift_table", "blocks.0.scale_shift_table", "blocks.1.norm2.weight", "blocks.1.norm2.bias",
              "blocks.2.attn1.norm_q.weight", "blocks.0.attn1.to_q.bias", "blocks.3.ffn.net.2.weight",
              "condition_embedder.time_embedder.linear_1.weight", "condition_embedder.time_embedder.linear_2.weight",
              "condition_embedder.time_proj.bias")
    g = torch.Generator().manual_seed(1)
    changes = {name: 0.05 * torch.randn(base.weights[name].shape, generator=g) for name in chosen}
    file = {}
    for name, delta in changes.items():
        module, _, part = original_name(name).rpartition(".")
        if part in ("weight", "bias"):
            file[f"diffusion_model.{module}.{'diff' if part == 'weight' else 'diff_b'}"] = delta
        else:
            file[f"diffusion_model.{original_name(name)}.diff"] = delta
    expert, report = base.with_lora(lora_file(file, tmp_path))
    assert apart(velocity(expert), base.with_change(changes)) < 1e-4
    assert "14 of 14 keys" in report[0]
    assert torch.equal(velocity(base.expert), base.original)


def test_one_file_for_both_experts_of_diffusers(plain: Base, tmp_path: Path) -> None:
    high, low = (lora_files.changes_of(plain.weights, part) for part in ("attn1", "ffn"))
    both = lora_files.FORMATS["diffusers"](high) | {
        k.replace("transformer.", "transformer_2.", 1): v for k, v in lora_files.FORMATS["diffusers"](low).items()}
    model, report = apply_loras(Wan22Model(plain.expert, plain.expert), [lora_file(both, tmp_path, expert="both")])
    assert apart(velocity(model.high), plain.with_change(weights(high))) < 1e-4
    assert apart(velocity(model.low), plain.with_change(weights(low))) < 1e-4
    assert [re.split(": |;", line)[1] for line in report] == [f"{2 * len(high)} of {2 * len(high)} keys",
                                                             f"{2 * len(low)} of {2 * len(low)} keys"]


def image_projection_of_wan_2_1() -> dict[str, torch.Tensor]:
    return {f"diffusion_model.blocks.{block}.cross_attn.{layer}.lora_{half}.weight": torch.randn(shape)
            for block in range(5) for layer in ("k_img", "v_img") for half, shape in (("A", (4, 256)), ("B", (256, 4)))}


def input_layer_of_text_to_video() -> dict[str, torch.Tensor]:
    return {"diffusion_model.patch_embedding.diff": torch.randn(256, 16, 1, 2, 2)}


@pytest.mark.parametrize("extra, said", [
    (image_projection_of_wan_2_1, "20 of 40 keys; 20 are image projection of Wan 2.1"),
    (input_layer_of_text_to_video, "20 of 21 keys; 1 are for a patch embedding of another number of channels"),
])
def test_what_another_wan_model_has_besides_is_named_and_harmless(
        extra: Callable[[], dict[str, torch.Tensor]], said: str, plain: Base, tmp_path: Path) -> None:
    changes = lora_files.changes_of(plain.weights, "ffn")
    expert, report = plain.with_lora(lora_file(lora_files.FORMATS["diffusion-pipe"](changes) | extra(), tmp_path))
    assert apart(velocity(expert), plain.with_change(weights(changes))) < 1e-4
    assert said in report[0]


def test_too_few_matching_keys_is_an_error_unless_allowed(plain: Base, tmp_path: Path) -> None:
    changes = lora_files.changes_of(plain.weights, "attn1.to_q")
    file = lora_files.FORMATS["lightx2v"](changes)
    file |= {k.replace("self_attn", "joint_attn"): v for k, v in file.items()}
    refused = lora_file(file, tmp_path)
    with pytest.raises(RequestError, match=r"10 of 20 keys; 10 are not known.*50%.*min_match"):
        plain.with_lora(refused)
    expert, _ = plain.with_lora(replace(refused, lora=replace(refused.lora, min_match=0.4)))
    assert apart(velocity(expert), plain.with_change(weights(changes))) < 1e-4


@pytest.mark.parametrize("name", ["lightx2v", "musubi", "LoKr", "LoHa", "diff"])
def test_another_size_is_an_error(name: str, plain: Base, tmp_path: Path) -> None:
    write = lora_files.FORMATS[name]
    with pytest.raises(CheckpointError, match=r"512 wide.*experts are 256 wide"):
        plain.with_lora(lora_file(write({"blocks.0.attn1.to_q": lora_files.change_of(512, 512)}), tmp_path))
    with pytest.raises(RequestError, match="512 x 256, the expert's is 768 x 256"):
        plain.with_lora(lora_file(write({"blocks.0.ffn.net.0.proj": lora_files.change_of(512, 256)}), tmp_path))
    with pytest.raises(CheckpointError, match="9 blocks or more; these experts have 5"):
        plain.with_lora(lora_file(write({"blocks.8.attn1.to_q": lora_files.change_of(256, 256)}), tmp_path))


@pytest.mark.parametrize("parts", [
    {"q.hada_w1_a": (256, 4), "q.hada_w1_b": (4, 256), "q.hada_w2_a": (128, 4), "q.hada_w2_b": (4, 256)},
    {"norm_q.diff": (77,)},
    {"q.diff_b": (77,)},
    {"q.lora_up.weight": (256, 4), "q.lora_down.weight": (4, 256), "q.dora_scale": (77, 1)},
    {"q.lora_up.weight": (256, 4), "q.lora_down.weight": (4, 256), "q.alpha": (2,)},
], ids=["LoHa", "norm", "bias", "DoRA", "alpha"])
def test_parts_that_do_not_fit_are_told_at_once(parts: dict[str, tuple], plain: Base, tmp_path: Path) -> None:
    """ComfyUI would log them and leave the weight as it is, or stop in the middle of sampling."""
    file = {f"diffusion_model.blocks.0.self_attn.{name}": torch.ones(shape) for name, shape in parts.items()}
    with pytest.raises(CheckpointError, match="is damaged"):
        plain.with_lora(lora_file(file, tmp_path))


def test_a_bias_that_is_not_there_is_not_counted(plain: Base, tmp_path: Path) -> None:
    file = {"diffusion_model.blocks.0.self_attn.norm_q.diff_b": torch.ones(256)}
    with pytest.raises(RequestError, match="0 of 1 keys"):
        plain.with_lora(lora_file(file, tmp_path))


def test_scale_0_forgets_even_what_replaces_weights(plain: Base, tmp_path: Path) -> None:
    file = {"diffusion_model.blocks.0.self_attn.q.set_weight": torch.full((256, 256), 7.0)}
    expert, _ = plain.with_lora(lora_file(file, tmp_path, 0.0))
    assert torch.equal(velocity(expert), plain.original)


def test_the_host_of_scripts_applies_them_too(base: Base, tmp_path: Path) -> None:
    """Low-rank changes, and what is worked out on the weight."""
    expert = load_expert(base.path, plain_host())
    changes = lora_files.changes_of(base.weights)
    for name in ("musubi", "LoKr", "diff"):
        file = lora_file(lora_files.FORMATS[name](changes), tmp_path, 0.5)
        model, _ = apply_loras(Wan22Model(expert, expert), [file])
        assert apart(velocity(model.high), base.with_change(weights(changes, 0.5))) < 1e-4
    assert torch.equal(velocity(expert), velocity(load_expert(base.path, plain_host())))


@pytest.mark.parametrize("wrong, said", [
    (Lora(""), "no source"), (Lora("a", 4.5), "4.5"), (Lora("a", float("nan")), "nan"),
    (Lora("a", expert="middle"), "auto, both, high, low"), (Lora("a", sha256="abc"), "3 characters"),
    (Lora("a", min_match=1.5), "0 to 1"),
])
def test_values_out_of_range(wrong: Lora, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        wrong.check()
