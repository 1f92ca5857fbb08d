"""Low-rank additions to an expert's linear layers, to train and to write under ComfyUI's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from diffusers import WanTransformer3DModel
from export import original_name
from safetensors.torch import save_file
from text import embed, new_text_encoder
from train_experts import CONFIG, read_states
from training_attention import use_training_attention


class LoraLinear(torch.nn.Module):
    """A frozen linear layer with a trained low-rank addition, up(down(x))."""

    def __init__(self, base: torch.nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = torch.nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = torch.nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + torch.nn.functional.linear(torch.nn.functional.linear(x, self.down), self.up)


def inject(model: WanTransformer3DModel, rank: int) -> dict[str, LoraLinear]:
    """Replace every linear layer of the blocks; original name -> its LoRA."""
    model.requires_grad_(False)
    found = {}
    for name, module in [(n, m) for n, m in model.named_modules() if n.startswith("blocks.")]:
        for child, layer in list(module.named_children()):
            if isinstance(layer, torch.nn.Linear):
                lora = LoraLinear(layer, rank)
                setattr(module, child, lora)
                found[original_name(f"{name}.{child}.weight").removesuffix(".weight")] = lora
    return found


@dataclass(frozen=True)
class Expert:
    """An expert with LoRAs to train: 0 or 1, its noise level's name, and the embedding of its prompts."""

    index: int
    noise: str
    model: WanTransformer3DModel
    loras: dict[str, LoraLinear]
    embed_prompts: Callable[[list[str]], torch.Tensor]

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]


def experts_with_loras(weights: list[Path], spiece: str, rank: int, only: str | None = None) -> Iterator[Expert]:
    """Both experts, or the one called `only`, from files of train_experts.py, each with new LoRAs and nothing else to
    train."""
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=spiece)
    states = read_states(weights)
    text = new_text_encoder(tokenizer.get_piece_size())
    text.load_state_dict(states["text_encoder"], strict=False)
    for index, (part, noise) in enumerate((("transformer", "high"), ("transformer_2", "low"))):
        if only in (None, noise):
            model = WanTransformer3DModel(**CONFIG)
            model.load_state_dict(states[part])
            use_training_attention(model)
            loras = inject(model, rank)
            yield Expert(index, noise, model, loras, lambda texts: embed(tokenizer, text, texts).detach())


def save_loras(loras: dict[str, LoraLinear], path: Path) -> None:
    """Write the additions as fp16: diffusion_model.*.lora_down/lora_up/alpha."""
    tensors = {}
    for name, lora in loras.items():
        tensors[f"diffusion_model.{name}.lora_down.weight"] = lora.down.detach().half().contiguous()
        tensors[f"diffusion_model.{name}.lora_up.weight"] = lora.up.detach().half().contiguous()
        tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(float(len(lora.down))).half()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"base_model": "wan2.2_i2v_demo", "rank": str(len(lora.down))})
