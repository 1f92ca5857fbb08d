"""What the LoRA probe tells: every format, which model and expert, and what it refuses; each a real small file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from devtools.paths import ROOT
from pipeline.checkpoint.errors import CheckpointError
from pipeline.checkpoint.expert_name import expert_in_name
from pipeline.checkpoint.safetensors_file import read_header
from pipeline.lora.adapters import Adapter
from pipeline.lora.expert import NO_CLUE, choose_expert
from pipeline.lora.names import OUTSIDE, LoraKey, Style, split
from pipeline.lora.probe import LoraFacts, check_fits, probe_lora
from tests.support.lora_files import DRAIN

Shapes = dict[str, tuple[int, ...]]


def probed(folder: Path, shapes: Shapes, metadata: dict[str, str] | None = None, name: str = "my.safetensors",
           ) -> LoraFacts:
    """The facts of a file with tensors of these shapes, which take no memory of their own."""
    tensors = {key: torch.zeros(shape, dtype=torch.float8_e4m3fn) for key, shape in shapes.items()}
    save_file(tensors, folder / name, metadata=metadata)
    return probe_lora(read_header(folder / name))


def refused(folder: Path, shapes: Shapes, name: str = "my.safetensors") -> str:
    with pytest.raises(CheckpointError) as error:
        probed(folder, shapes, name=name)
    assert name in str(error.value)
    return str(error.value)


def lora(module: str, inputs: int = 5120, outputs: int = 5120, rank: int = 4) -> Shapes:
    return {f"{module}.lora_down.weight": (rank, inputs), f"{module}.lora_up.weight": (outputs, rank),
            f"{module}.alpha": ()}


# ---- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "style", "expert", "module", "part"), [
    ("diffusion_model.blocks.0.cross_attn.k.lora_down.weight", Style.COMFYUI, None, "blocks.0.cross_attn.k",
     "lora_down.weight"),
    ("diffusion_model.blocks.39.ffn.2.lora_B.weight", Style.COMFYUI, None, "blocks.39.ffn.2", "lora_up.weight"),
    ("diffusion_model.head.head.diff", Style.COMFYUI, None, "head.head", "diff"),
    ("diffusion_model.blocks.1.norm3.diff_b", Style.COMFYUI, None, "blocks.1.norm3", "diff_b"),
    ("diffusion_model.blocks.1.diff_m", Style.COMFYUI, None, "blocks.1.modulation", "diff"),
    ("diffusion_model.blocks.2.self_attn.o.lora_B.bias", Style.COMFYUI, None, "blocks.2.self_attn.o",
     "lora_up.bias"),
    ("diffusion_model.transformer_1.blocks.0.attn1.to_q.lora_A.weight", Style.COMFYUI, "high",
     "blocks.0.self_attn.q", "lora_down.weight"),
    ("transformer.blocks.7.attn2.to_out.0.lora_B.weight", Style.DIFFUSERS, None, "blocks.7.cross_attn.o",
     "lora_up.weight"),
    ("transformer.blocks.7.self_attn.q.lora_A.weight", Style.DIFFUSERS, None, "blocks.7.self_attn.q",
     "lora_down.weight"),
    ("transformer.blocks.7.attn2.add_k_proj.lora_A.weight", Style.DIFFUSERS, None, "blocks.7.cross_attn.k_img",
     "lora_down.weight"),
    ("transformer.blocks.0.scale_shift_table.diff", Style.DIFFUSERS, None, "blocks.0.modulation", "diff"),
    ("base_model.model.blocks.0.ffn.net.0.proj.lora_A.default.weight", Style.PEFT, None, "blocks.0.ffn.0",
     "lora_down.weight"),
    ("base_model.model.blocks.0.self_attn.v.lora_magnitude_vector.default.weight", Style.PEFT, None,
     "blocks.0.self_attn.v", "dora_scale"),
    ("lora_unet_blocks_12_cross_attn_k_img.alpha", Style.KOHYA, None, "blocks.12.cross_attn.k_img", "alpha"),
    ("lora_unet__blocks_0_ffn_2.lora_up.weight", Style.KOHYA, None, "blocks.0.ffn.2", "lora_up.weight"),
    ("lycoris_blocks_3_attn1_to_out_0.lokr_w2_a", Style.LYCORIS, None, "blocks.3.self_attn.o", "lokr_w2_a"),
    ("pipe.dit.blocks.3.self_attn.q.lora_A.default.weight", Style.DIFFSYNTH, None, "blocks.3.self_attn.q",
     "lora_down.weight"),
    ("blocks.0.self_attn.q.lora_A.default.weight", Style.BARE, None, "blocks.0.self_attn.q", "lora_down.weight"),
    ("blocks.0.self_attn.q.hada_w1_b", Style.BARE, None, "blocks.0.self_attn.q", "hada_w1_b"),
    ("blocks.0.self_attn.q.dora_scale", Style.BARE, None, "blocks.0.self_attn.q", "dora_scale"),
    ("blocks.0.self_attn.q.lora_mid.weight", Style.BARE, None, "blocks.0.self_attn.q", "lora_mid.weight"),
])
def test_names(name: str, style: Style, expert: str | None, module: str, part: str) -> None:
    assert split([name]) == {name: LoraKey(style, expert, module, True, part)}


def test_names_of_no_lora_and_of_other_models() -> None:
    assert split(["blocks.0.self_attn.q.weight", "decoder.conv_in.bias", ""]) == {}
    (key,) = split(["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"]).values()
    assert not key.known


def test_every_module_is_known_by_both_its_names() -> None:
    for ours, theirs in OUTSIDE.items():
        for name in (f"diffusion_model.{ours}", f"transformer.{theirs}", f"lora_unet_{ours.replace('.', '_')}"):
            (key,) = split([f"{name}.lora_up.weight"]).values()
            assert (key.module, key.known) == (ours, True)


def test_transformer_is_the_high_noise_expert_beside_transformer_2() -> None:
    high, low = "transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer_2.blocks.0.attn1.to_q.lora_A.weight"
    assert {name: key.expert for name, key in split([high, low]).items()} == {high: "high", low: "low"}
    assert split([high])[high].expert is None
    assert split([low])[low].expert == "low"


# ---- what a LoRA is -------------------------------------------------------------------------------------------------


def test_the_bundled_pair() -> None:
    for noise in ("high", "low"):
        path = DRAIN[noise]
        header = read_header(path)
        facts = probe_lora(header)
        assert (facts.style, facts.adapters, facts.ranks) == (Style.COMFYUI, (Adapter.LORA,), (8, 8))
        assert facts.modules == {"self_attn": 20, "cross_attn": 20, "ffn": 10}
        assert (facts.width, facts.blocks, facts.made_for) == (256, 5, "the bundled demo model")
        check_fits(facts, 256, 5)
        assert choose_expert(facts, path.name, header.metadata) == (noise, f"its file name says {noise} noise")
        with pytest.raises(CheckpointError, match=r"bundled demo model \(256 wide\); these experts are 5120 wide"):
            check_fits(facts, 5120, 40)


@pytest.mark.parametrize(("parts", "adapters", "ranks"), [
    ({"lora_down.weight": (4, 5120), "lora_up.weight": (5120, 4)}, (Adapter.LORA,), (4, 4)),
    ({"lora_A.weight": (4, 5120), "lora_B.weight": (5120, 4), "dora_scale": (5120, 1)}, (Adapter.DORA,), (4, 4)),
    ({"lora_down.weight": (4, 5120), "lora_up.weight": (5120, 4), "diff_b": (5120,)}, (Adapter.LORA,), (4, 4)),
    ({"hada_w1_a": (5120, 2), "hada_w1_b": (2, 5120), "hada_w2_a": (5120, 2), "hada_w2_b": (2, 5120), "alpha": ()},
     (Adapter.LOHA,), (2, 2)),
    ({"lokr_w1": (8, 8), "lokr_w2_a": (640, 3), "lokr_w2_b": (3, 640)}, (Adapter.LOKR,), (3, 3)),
    ({"lokr_w1": (32, 32), "lokr_w2": (160, 160)}, (Adapter.LOKR,), None),
    ({"lokr_w1_a": (64, 2), "lokr_w1_b": (2, 64), "lokr_w2": (80, 80)}, (Adapter.LOKR,), (2, 2)),
    ({"diff": (5120, 5120)}, (Adapter.DIFFERENCE,), None),
])
@pytest.mark.parametrize("prefix", ["diffusion_model.blocks.3.self_attn.q.", "lora_unet_blocks_3_self_attn_q.",
                                    "transformer.blocks.3.attn1.to_q.", "blocks.3.self_attn.q."])
def test_kinds_of_patch(tmp_path: Path, prefix: str, parts: Shapes, adapters: tuple[Adapter, ...],
                        ranks: tuple[int, int] | None) -> None:
    facts = probed(tmp_path, {prefix + part: shape for part, shape in parts.items()})
    assert (facts.adapters, facts.ranks, facts.width, facts.blocks) == (adapters, ranks, 5120, 4)
    assert facts.made_for == "Wan 14B" and facts.modules == {"self_attn": 1}


def test_ranks_that_vary_and_parts_of_the_model(tmp_path: Path) -> None:
    shapes = lora("diffusion_model.blocks.0.ffn.0", 5120, 13824, 8) | lora("diffusion_model.blocks.39.cross_attn.v")
    shapes |= {"diffusion_model.head.head.diff": (64, 5120), "diffusion_model.head.head.diff_b": (64,),
               "diffusion_model.blocks.0.norm3.diff": (5120,), "diffusion_model.blocks.0.new_part.diff": (3,)}
    facts = probed(tmp_path, shapes)
    assert facts.adapters == (Adapter.DIFFERENCE, Adapter.LORA) and facts.ranks == (4, 8)
    assert facts.modules == {"ffn": 1, "cross_attn": 1, "outside": 2, "unknown": 1}
    assert (facts.width, facts.blocks) == (5120, 40)
    check_fits(facts, 5120, 40)
    with pytest.raises(CheckpointError, match=r"40 blocks or more; these experts have 30"):
        check_fits(facts, 5120, 30)


@pytest.mark.parametrize(("shapes", "metadata", "made_for"), [
    (lora("blocks.0.cross_attn.k_img"), {}, "Wan 2.1 I2V 14B"),
    (lora("img_emb.proj.1", 1280, 1280) | lora("blocks.0.self_attn.q"), {}, "Wan 2.1 I2V 14B"),
    (lora("blocks.0.self_attn.q", 3072, 3072), {}, "Wan 2.2 TI2V 5B"),
    (lora("blocks.0.self_attn.q", 1536, 1536), {}, "Wan 1.3B"),
    (lora("blocks.0.self_attn.q", 640, 640), {}, "Wan (640 wide)"),
    (lora("vace_blocks.0.self_attn.q"), {}, "Wan VACE 14B"),
    (lora("blocks.0.self_attn.q") | {"patch_embedding.diff": (5120, 16, 1, 2, 2)}, {}, "Wan T2V 14B"),
    (lora("blocks.0.self_attn.q") | {"patch_embedding.lora_down.weight": (2, 36, 1, 2, 2),
                                     "patch_embedding.lora_up.weight": (5120, 2, 1, 1, 1)}, {}, "Wan I2V 14B"),
    (lora("blocks.0.self_attn.q"), {"ss_sd_model_name": "wan2.2_i2v_low_noise_14B_fp16.safetensors"},
     "Wan 2.2 I2V 14B"),
    (lora("blocks.0.self_attn.q"), {"ss_base_model_version": "wan22_14b_i2v"}, "Wan 2.2 I2V 14B"),
    (lora("blocks.0.self_attn.q"), {"ss_sd_model_name": "Wan2_1-T2V-14B_fp8.safetensors"}, "Wan 2.1 T2V 14B"),
    (lora("blocks.0.self_attn.q"), {"modelspec.architecture": "wan2.1/lora"}, "Wan 14B"),
])
def test_what_it_was_made_for(tmp_path: Path, shapes: Shapes, metadata: dict[str, str], made_for: str) -> None:
    facts = probed(tmp_path, shapes, metadata)
    assert facts.made_for == made_for
    if facts.width == 5120:
        check_fits(facts, 5120, 40)
        return
    with pytest.raises(CheckpointError, match=rf"my.safetensors is a LoRA for {made_for.partition(' (')[0]}.* wide\); "
                                              "these experts are 5120 wide"):
        check_fits(facts, 5120, 40)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modules", "family"), [
    (["lora_unet_down_blocks_0_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1"],
     "Stable Diffusion 1 or 2"),
    (["lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_k", "lora_te2_text_model_encoder_layers_0_mlp_fc1"],
     "SDXL"),
    (["lora_unet_double_blocks_0_img_mlp_0", "lora_unet_single_blocks_0_linear1"], "Flux"),
    (["transformer.single_transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.add_q_proj"],
     "Flux"),
    (["diffusion_model.double_blocks.0.img_mlp.fc1", "diffusion_model.single_blocks.0.linear1"], "HunyuanVideo"),
    (["lora_unet_double_blocks_19_img_attn_qkv"], "HunyuanVideo"),
    (["lora_unet_double_blocks_3_img_attn_qkv"], "Flux or HunyuanVideo"),
    (["transformer.transformer_blocks.0.attn1.to_q", "transformer.transformer_blocks.0.attn2.to_k",
      "transformer.proj_out"], "LTX-Video"),
    (["diffusion_model.transformer_blocks.0.attn.to_q", "diffusion_model.transformer_blocks.0.img_mlp.net.2"],
     "Qwen-Image"),
    (["transformer.transformer_blocks.0.attn.add_q_proj"], "Stable Diffusion 3"),
    (["diffusion_model.layers.0.attention.to_q", "diffusion_model.layers.0.feed_forward.w1"], "Z-Image or Lumina"),
    (["diffusion_model.blocks.0.self_attn.q_proj"], "Cosmos"),
    (["base_model.model.model.layers.0.self_attn.q_proj"], "a language model"),
    (["diffusion_model.nothing_anyone_knows"], "a model that is not known here"),
])
def test_loras_for_other_models(tmp_path: Path, modules: list[str], family: str) -> None:
    shapes = {name: shape for module in modules for name, shape in lora(module, 8, 8).items()}
    assert f"my.safetensors is a LoRA for {family}, not for Wan." in refused(tmp_path, shapes)


@pytest.mark.parametrize(("names", "what"), [
    (["emb_params"], "a textual-inversion embedding"),
    (["model.diffusion_model.input_blocks.0.0.weight"], "a whole checkpoint"),
    (["double_blocks.0.img_attn.qkv.weight"], "a whole model, or a part of one"),
    (["encoder.conv_in.weight", "decoder.conv_in.weight"], "a VAE"),
    (["text_model.encoder.layers.0.mlp.fc1.weight"], "a text encoder"),
    (["a.alpha", "b.alpha"], "something else"),
    (["anything"], "something else"),
])
def test_files_that_are_no_lora(tmp_path: Path, names: list[str], what: str) -> None:
    assert f"my.safetensors is {what}, not a LoRA." in refused(tmp_path, dict.fromkeys(names, (1,)))


def test_the_bundled_models_are_no_loras() -> None:
    for folder, what in (("diffusion_models", "a Wan 2.2 I2V-A14B expert"), ("vae", "the VAE of Wan 2.1"),
                         ("text_encoders", "a UMT5 text encoder")):
        path = min((ROOT / "models" / "demo" / folder).glob("*.safetensors"))
        with pytest.raises(CheckpointError, match=f"{path.name} is {what}, not a LoRA"):
            probe_lora(read_header(path))


@pytest.mark.parametrize(("parts", "said"), [
    ({"lora_down.weight": (4, 8)}, "has lora_down.weight without lora_up.weight"),
    ({"lora_B.weight": (8, 4), "alpha": ()}, "has lora_up.weight without lora_down.weight"),
    ({"lora_down.weight": (4, 8), "lora_up.weight": (8, 5)}, "has ranks 5 and 4"),
    ({"lora_down.weight": (0, 8), "lora_up.weight": (8, 0)}, r"has lora_up.weight of shape \[8, 0\]"),
    ({"lora_down.weight": (8,), "lora_up.weight": (8, 1)}, r"has lora_down.weight of shape \[8\]"),
    ({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8), "hada_w2_a": (8, 2)}, "has hada_w1_a without hada_w2_b"),
    ({"lokr_w1": (2, 2), "lokr_w2_a": (4, 2)}, "without lokr_w2_b"),
    ({"lokr_w2": (2, 2)}, "has lokr_w2 without lokr_w1_a"),
])
def test_damaged_patches(tmp_path: Path, parts: Shapes, said: str) -> None:
    whole = lora("diffusion_model.blocks.0.self_attn.k", 8, 8)
    shapes = whole | {f"diffusion_model.blocks.0.self_attn.q.{part}": shape for part, shape in parts.items()}
    with pytest.raises(CheckpointError, match=f"my.safetensors is damaged: blocks.0.self_attn.q .*{said}.* Fetch it"):
        probed(tmp_path, shapes)


def test_two_widths_and_two_loras_in_one_file(tmp_path: Path) -> None:
    shapes = lora("blocks.0.self_attn.q") | lora("blocks.0.self_attn.k", 3072, 3072)
    assert "models of different widths, 3072 and 5120" in refused(tmp_path, shapes)
    twice = lora("blocks.0.self_attn.q") | {"blocks.0.self_attn.q.lora_A.other.weight": (4, 5120)}
    assert "two patches for blocks.0.self_attn.q" in refused(tmp_path, twice)


# ---- which expert ---------------------------------------------------------------------------------------------------

FILES = [
    ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise", "high"),
    ("wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise", "low"),
    ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise", "high"),
    ("wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise", "low"),
    ("wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022", "high"),
    ("wan2.2_i2v_A14b_low_noise_lora_rank64_lightx2v_4step_1022", "low"),
    ("wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217", "high"),
    ("wan2.2_t2v_A14b_low_noise_lora_rank64_lightx2v_4step_1217", "low"),
    ("Wan_2_2_I2V_A14B_HIGH_lightx2v_MoE_distill_lora_rank_64_bf16", "high"),
    ("Wan_2_2_I2V_A14B_HIGH_lightx2v_4step_lora_v1030_rank_64_bf16", "high"),
    ("I2V_A14B_LOW_lightx2v_4step_lora_260412_rank_256_fp16", "low"),
    ("Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16", "high"),
    ("Wan2.2-Lightning_I2V-A14B-4steps-lora_LOW_fp16", "low"),
    ("Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora_HIGH_fp16", "high"),
    ("Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora_LOW_fp16", "low"),
    ("Wan22_A14B_T2V_HIGH_Lightning_4steps_lora_250928_rank128_fp16", "high"),
    ("Wan22_A14B_T2V_LOW_Lightning_4steps_lora_250928_rank64_fp16", "low"),
    ("Wan2.2-T2V-A14B-4steps-lora-250928_low_noise_model", "low"),
    ("Wan2.2-I2V-A14B-HIGH-4steps-lora-rank64-Seko-V1", "high"),
    ("Wan2.2-I2V-A14B-LOW-4steps-lora-rank64-Seko-V1", "low"),
    ("Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1_LN", "low"),
    ("Wan2.2-I2V-A14B-4steps-lora-rank64-Seko-V1/high_noise_model", "high"),
    ("Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V2.0/low_noise_model", "low"),
    ("Wan22_PusaV1_lora_HIGH_resized_dynamic_avg_rank_98_bf16", "high"),
    ("Wan22_PusaV1_lora_LOW_resized_dynamic_avg_rank_98_bf16", "low"),
    ("SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16", "high"),
    ("SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16", "low"),
    ("SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0_pro", "high"),
    ("svi_2.0_pro_wan22_high", "high"),
    ("Wan2.2-Fun-A14B-InP-high-noise-HPS2.1", "high"),
    ("Wan2.2-Fun-A14B-InP-low-noise-HPS2.1", "low"),
    ("Wan22_FFGO-LoRA-HIGH_bf16", "high"),
    ("Wan22_FFGO-LoRA-LOW_bf16", "low"),
    ("Instareal_high", "high"),
    ("Instareal_low", "low"),
    ("Instagirlv2.5-HIGH", "high"),
    ("Instagirlv2.5-LOW", "low"),
    ("wan2.2_instareal_highnoise", "high"),
    ("stock_photography_wan22_HIGH_v1", "high"),
    ("stock_photography_wan22_LOW_v1", "low"),
    ("wan22_14b_i2v_orbit_high_noise", "high"),
    ("wan2.2_i2v_magical_morph_highnoise", "high"),
    ("wan2.2_i2v_magical_morph_lownoise", "low"),
    ("Dunking_Basketball_HighNoise", "high"),
    ("BounceHighWan2_2", "high"),
    ("BounceLowWan2_2", "low"),
    ("HIGH_hands_trace_body", "high"),
    ("LOW_hands_trace_body", "low"),
    ("WAN-2.2-T2V-oggy Style-HIGH 14B", "high"),
    ("Wan2.2 - I2V - King Machine - HIGH 14B", "high"),
    ("wan/WAN22/High/cam_wan22", "high"),
    ("Wan2.2-I2V-A14B_low_noise_lora/epoch-4", "low"),
    # of either half, or of Wan 2.1, without a word on noise
    ("lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16", None),
    ("lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16", None),
    ("lightx2v_elite_it2v_animate_face", None),
    ("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32", None),
    ("Wan21_CausVid_14B_T2V_lora_rank32_v2", None),
    ("Wan21_AccVid_T2V_14B_lora_rank32_fp16", None),
    ("Wan2.1_I2V_14B_FusionX_LoRA", None),
    ("Wan2.2-Fun-A14B-InP-Fusion-Elite", None),
    ("WanAnimate_relight_lora_fp16_resized_from_128_to_dynamic_22", None),
    ("WAN22_MoCap_fullbodyCOPY_ED", None),
    ("FullDynamic_Ultimate_Fusion_Elite", None),
    ("HighSpeedDynamics", None),
    ("DetailEnhancerV1", None),
]
"""Names of public LoRA files, in Hugging Face repositories and on Civitai, as scripts that fetch them have them; those
of distillations, styles and motions for Wan 2.2 and 2.1."""


@pytest.mark.parametrize(("name", "expert"), FILES)
def test_real_file_names(tmp_path: Path, name: str, expert: str | None) -> None:
    facts = probed(tmp_path, lora("blocks.0.self_attn.q", 8, 8))
    chosen, why = choose_expert(facts, f"{name}.safetensors", {})
    assert chosen == (expert or "both")
    assert why == NO_CLUE if expert is None else expert in why and "name says" in why


@pytest.mark.parametrize(("name", "expert"), [
    ("wan22-22-H-e8", "high"), ("wan22-22-L-e8", "low"), ("style_H", "high"), ("wan22_style_l", "low"),
    ("model_HN", "high"), ("W22_i2v_LN_v2", "low"), ("wan_hn_", "high"),
    ("pan_l", None), ("size_XL", None), ("highres", None), ("slow_motion", None), ("wan_slowmo_glow", None),
    ("flow_below_yellow", None), ("wan22_low_angle_shot", None), ("wan22_LowAngle_high_noise", "high"),
    ("wan_high_heels_LOW", "low"), ("wan22_high_and_low", None), ("wan22_high_noise_low_noise", None),
    ("low-poly", None), ("H264_l33t", None), ("hnl", None), ("", None),
    ("orbit_Hnoise", "high"), ("OrbitLnoise_v2", "low"), ("wan22-h-noise", "high"), ("Wan2.2_HiNoise", "high"),
    ("style_lo_noise", "low"), ("denoise", None), ("modelNoise", None), ("XLnoise", None), ("PIXELNOISE", None),
    ("Wan22_orbit_HI", "high"), ("orbit_LO_v1", "low"), ("wan2.2 orbit hi", "high"), ("wan22_lo_e40", "low"),
    ("W22_HNv2", "high"), ("wan22_HI_LO", None), ("hi-res", None), ("wan22_hi-res_fix", None), ("wan_lo-fi", None),
    ("WAN22_LO_FI", None), ("HiDream_wan", None), ("wan_HI_DREAM", None), ("wan22_say_hi", None), ("hi", None),
    ("wan_hi_there", None), ("wan22_lo_mejor", None), ("low_angle", None), ("wan22_HV15", None), ("wan22_HIP", None),
    ("角色_高噪", "high"), ("wan2.2-低噪声-v1", "low"), ("高噪音 lora", "high"), ("運鏡_低噪聲", "low"),
    ("低雜訊", "low"), ("カメラ高ノイズ", "high"), ("低ﾉｲｽﾞ", "low"), ("카메라_고노이즈", "high"), ("저노이즈", "low"),
    ("降低噪点", None), ("提高噪点", None), ("高清", None), ("低角度", None), ("高噪_低噪", None),
    ("wan2.2_运镜_高", "high"),
])
def test_words_in_names(name: str, expert: str | None) -> None:
    assert expert_in_name(name) == expert


def test_prefixes_and_notes_come_before_the_name(tmp_path: Path) -> None:
    plain = probed(tmp_path, lora("blocks.0.self_attn.q", 8, 8))
    both = probed(tmp_path, lora("transformer.blocks.0.attn1.to_q", 8, 8) |
                  lora("transformer_2.blocks.0.attn1.to_q", 8, 8))
    low = probed(tmp_path, lora("transformer_2.blocks.0.attn1.to_q", 8, 8))
    name = "wan22_high_noise.safetensors"
    assert both.experts == {"high", "low"}
    assert choose_expert(both, name, {}) == ("both", "it has tensors for each of the two")
    assert choose_expert(low, name, {}) == ("low", "its tensors are named for the low-noise expert")
    timesteps = "modelspec.timestep_range"
    assert choose_expert(plain, name, {timesteps: "0,900"}) == (
        "low", "it was trained on timesteps 0 to 900 of 1000")
    assert choose_expert(plain, "x", {timesteps: "875,1000"})[0] == "high"
    assert choose_expert(plain, "x", {timesteps: "0,1000"}) == ("both", NO_CLUE)
    assert choose_expert(plain, name, {timesteps: "nonsense"})[0] == "high"
    assert choose_expert(plain, name, {"ss_output_name": "orbit-LOW"}) == ("low", "its trainer called it low noise")
    base = "ss_sd_model_name"
    assert choose_expert(plain, "x", {base: "wan2.2_i2v_high_noise_14B_fp16.safetensors"}) == (
        "high", "it was trained on the high-noise expert")
    assert choose_expert(plain, "x", {base: "wan2.2_i2v_low_noise_14B_fp16.safetensors"}) == ("both", NO_CLUE)


@pytest.mark.parametrize(("key", "value", "expert"), [
    ("ss_output_name", "orbit_Lnoise", "low"), ("ss_output_name", "运镜_高噪", "high"), ("name", "Wan22 LO", "low"),
    ("modelspec.title", "カメラ低ノイズ", "low"), ("ss_sd_model_name", "wan2.2_i2v_Hnoise.safetensors", "high"),
])
def test_names_in_the_metadata(tmp_path: Path, key: str, value: str, expert: str) -> None:
    facts = probed(tmp_path, lora("blocks.0.self_attn.q", 8, 8))
    assert choose_expert(facts, "x", {key: value})[0] == expert


def test_the_parts_are_named_as_comfyui_names_them() -> None:
    path = DRAIN["high"]
    names = read_header(path).shapes.keys()
    assert {f"diffusion_model.{key.module}.{key.part}" for key in split(names).values()} == names
