"""Write the trained demo model in the file layouts of the real Wan 2.2, as fp16.

usage: export.py VAE_DIR SPIECE_MODEL OUT_DIR PT [PT ...]     (small.pt large-high.pt large-low.pt)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import whole_clip_vae
from clips import random_clip
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from pictures import canvas
from safetensors.torch import save_file
from train_experts import CONFIG, normalise, read_states

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.lora.apply import original_name


def original_vae(vae: AutoencoderKLWan) -> dict[str, torch.Tensor]:
    """The VAE's weights under the names of wan/modules/vae2_1.py, found by running diffusers' converter backwards."""
    ours = vae.state_dict()
    theirs = [k.strip() for k in Path(__file__).with_name("vae_keys.txt").read_text().split("\n") if k.strip()]
    back = {new: old for old in theirs for new in convert_wan_vae_to_diffusers({old: torch.zeros(1)})}
    return {back[key]: value for key, value in ours.items()}


@torch.no_grad()
def latent_rgb(vae: AutoencoderKLWan) -> tuple[list[list[float]], list[float]]:
    """The linear map from normalised latents to colours (-1..1) that fits best, for live previews."""
    g = torch.Generator().manual_seed(5)
    clips = torch.stack([random_clip(128, 128, 9, g, canvas(256, 256, g)) for _ in range(16)])
    z = normalise(vae, whole_clip_vae.encode(vae, clips))[:, :, 1:].permute(0, 2, 3, 4, 1).reshape(-1, 16)
    colours = torch.nn.functional.avg_pool3d(clips[:, :, 1:], (4, 8, 8)).permute(0, 2, 3, 4, 1).reshape(-1, 3)
    fit = torch.linalg.lstsq(torch.cat([z, torch.ones(len(z), 1)], 1), colours).solution
    return fit[:16].tolist(), fit[16].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vae")
    parser.add_argument("spiece", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    args = parser.parse_args()
    whole_clip_vae.use_whole_clip_forward()
    vae = AutoencoderKLWan.from_pretrained(args.vae).eval()

    def save(name: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
        path = args.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in tensors.items()}
        save_file(half, path, metadata)
        print(f"{name}: {path.stat().st_size / 1e6:.2f} MB")

    states = read_states(args.weights)
    metadata = {
        # ComfyUI's detection assumes 4096-wide text embeddings unless told (comfy/model_detection.py).
        "config": json.dumps({"transformer": {"text_dim": CONFIG["text_dim"]}}),
        "latent_rgb": json.dumps(latent_rgb(vae)),
    }
    for noise, part in (("high", "transformer"), ("low", "transformer_2")):
        names = WanTransformer3DModel(**CONFIG).state_dict()
        save(f"diffusion_models/wan2.2_i2v_{noise}_noise_demo_fp16.safetensors",
             {original_name(k): states[part][k] for k in names}, metadata)
    text = {k: v for k, v in states["text_encoder"].items() if k != "encoder.embed_tokens.weight"}
    spiece = torch.frombuffer(bytearray(args.spiece.read_bytes()), dtype=torch.uint8)
    save("text_encoders/umt5_demo_fp16.safetensors", {**text, "spiece_model": spiece})
    save("vae/wan_2.1_vae_demo.safetensors", original_vae(vae))


if __name__ == "__main__":
    main()
