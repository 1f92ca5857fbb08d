"""Read the bundled model back into what the training scripts work on: the way to train it further.

usage: unpack.py OUT_DIR [--model DIR]

OUT_DIR gets vae/ (a diffusers folder), spiece.model, and words.pt, large-high.pt and large-low.pt as
train_experts.py writes them; export.py is the way back. What fp16 rounded away stays away.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from safetensors.torch import load_file
from train_experts import CONFIG

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipeline.lora.apply import original_name  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "demo")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    def read(name: str) -> dict[str, torch.Tensor]:
        tensors = load_file(args.model / name)
        return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}

    vae = AutoencoderKLWan(base_dim=16, z_dim=16)
    vae.load_state_dict(convert_wan_vae_to_diffusers(read("vae/wan_2.1_vae_demo.safetensors")))
    vae.save_pretrained(args.out / "vae")
    for noise, part in (("high", "transformer"), ("low", "transformer_2")):
        theirs = read(f"diffusion_models/wan2.2_i2v_{noise}_noise_demo_fp16.safetensors")
        weights = {k: theirs[original_name(k)] for k in WanTransformer3DModel(**CONFIG).state_dict()}
        torch.save({part: weights}, args.out / f"large-{noise}.pt")
    text = read("text_encoders/umt5_demo_fp16.safetensors")
    (args.out / "spiece.model").write_bytes(text.pop("spiece_model").numpy().tobytes())
    torch.save({"text_encoder": text}, args.out / "words.pt")


if __name__ == "__main__":
    main()
