"""Write one and the same change of an expert's weights as a LoRA file in every format that people's files have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from pipeline.checkpoint.safetensors_file import read_header
from pipeline.lora.apply import original_name
from pipeline.lora.bundled import FOLDER
from pipeline.lora.match import LoraFile
from pipeline.lora.probe import probe_lora
from pipeline.request import HIGH, LOW, Lora

Tensors = dict[str, torch.Tensor]
RANK = 4
DRAIN = {noise: FOLDER / f"wan2.2_i2v_demo_drain_colours_{noise}_noise.safetensors" for noise in (HIGH, LOW)}
"""The bundled pair under which colours drain away."""


@dataclass(frozen=True)
class Change:
    """A small change of a weight (out, in), of rank 4, that every format can hold exactly: kron(left, up @ down)."""

    left: torch.Tensor  # (2, 2)
    up: torch.Tensor  # (out / 2, 2)
    down: torch.Tensor  # (2, in / 2)

    @property
    def matrix(self) -> torch.Tensor:
        return torch.kron(self.left, self.up @ self.down)

    def factors(self, rank: int = RANK) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, rank) and (rank, in), whose product is the matrix; what is above rank 4 is zero."""
        more = rank - RANK
        up, down = torch.kron(self.left, self.up), torch.kron(torch.eye(2), self.down)
        return torch.nn.functional.pad(up, (0, more)), torch.nn.functional.pad(down, (0, 0, 0, more))


Changes = dict[str, Change]
"""By diffusers' name of the module."""


def change_of(rows: int, columns: int, seed: int = 0, strength: float = 0.02) -> Change:
    g = torch.Generator().manual_seed(seed)
    return Change(torch.randn(2, 2, generator=g) * strength, torch.randn(rows // 2, 2, generator=g),
                  torch.randn(2, columns // 2, generator=g))


def changes_of(parameters: Mapping[str, torch.Tensor], only: str = "blocks.") -> Changes:
    """A change of every matrix whose diffusers name holds `only`."""
    return {name.removesuffix(".weight"): change_of(*value.shape, seed=index)
            for index, (name, value) in enumerate(parameters.items())
            if only in name and name.endswith(".weight") and value.ndim == 2}


def _original(module: str) -> str:
    return original_name(f"{module}.weight").removesuffix(".weight")


def lora(prefix: str, up: str, down: str, *, original: bool = True, flat: bool = False, alpha: float | None = None,
         rank: Callable[[int], int] = lambda index: RANK) -> Callable[[Changes], Tensors]:
    """Writer of up and down matrices under a prefix and, `flat`, underscores for dots; rank by the module's place."""

    def write(changes: Changes) -> Tensors:
        file: Tensors = {}
        for index, (module, change) in enumerate(changes.items()):
            name = _original(module) if original else module
            name = prefix + (name.replace(".", "_") if flat else name)
            wide = rank(index)
            file[f"{name}.{up}"], file[f"{name}.{down}"] = change.factors(wide)
            if alpha is not None:
                file[f"{name}.{up}"] *= wide / alpha
                file[f"{name}.alpha"] = torch.tensor(alpha)
        return file

    return write


def lokr(changes: Changes) -> Tensors:
    file: Tensors = {}
    for module, change in changes.items():
        name = f"diffusion_model.{_original(module)}"
        file[f"{name}.lokr_w1"] = change.left
        file[f"{name}.lokr_w2_a"], file[f"{name}.lokr_w2_b"] = change.up, change.down
    return file


def loha(changes: Changes) -> Tensors:
    """The second factor is all ones."""
    file: Tensors = {}
    for module, change in changes.items():
        name = "lora_unet_" + _original(module).replace(".", "_")
        file[f"{name}.hada_w1_a"], file[f"{name}.hada_w1_b"] = up, down = change.factors()
        file[f"{name}.hada_w2_a"] = torch.full_like(up, 1.0 / RANK)
        file[f"{name}.hada_w2_b"] = torch.ones_like(down)
    return file


def dora(changes: Changes, base: Mapping[str, torch.Tensor], names: str = "dora_scale", by_column: bool = False,
         ) -> tuple[Tensors, dict[str, torch.Tensor]]:
    """A DoRA that makes every row (or column) of the sum half as long again, and what that adds to each weight."""
    file = lora("diffusion_model.", "lora_B.weight", "lora_A.weight")(changes)
    effect = {}
    for module, change in changes.items():
        weight = base[f"{module}.weight"].float()
        magnitude = 1.5 * weight.norm(dim=0 if by_column else 1, keepdim=True)
        summed = weight + change.matrix
        effect[f"{module}.weight"] = magnitude * summed / summed.norm(dim=0 if by_column else 1, keepdim=True) - weight
        # PEFT writes its magnitudes flat.
        file[f"diffusion_model.{_original(module)}.{names}"] = magnitude.flatten() if "vector" in names else magnitude
    return file, effect


def diff(changes: Changes) -> Tensors:
    return {f"diffusion_model.{_original(module)}.diff": change.matrix for module, change in changes.items()}


FORMATS: dict[str, Callable[[Changes], Tensors]] = {
    "lightx2v": lora("diffusion_model.", "lora_up.weight", "lora_down.weight"),
    "ComfyUI, alpha": lora("diffusion_model.", "lora_up.weight", "lora_down.weight", alpha=2.0),
    "diffusion-pipe": lora("diffusion_model.", "lora_B.weight", "lora_A.weight"),
    "diffusers": lora("transformer.", "lora_B.weight", "lora_A.weight", original=False),
    "diffusers prefix, original names": lora("transformer.", "lora_B.weight", "lora_A.weight"),
    "PEFT": lora("base_model.model.", "lora_B.weight", "lora_A.weight"),
    "PEFT, adapter named": lora("base_model.model.", "lora_B.default.weight", "lora_A.default.weight", original=False),
    "musubi": lora("lora_unet_", "lora_up.weight", "lora_down.weight", flat=True, alpha=8.0),
    "VideoX-Fun": lora("lora_unet__", "lora_up.weight", "lora_down.weight", flat=True, alpha=4.0),
    "bare names": lora("", "lora_B.weight", "lora_A.weight"),
    "bare names of diffusers": lora("", "lora_B.weight", "lora_A.weight", original=False),
    "varying ranks": lora("diffusion_model.", "lora_up.weight", "lora_down.weight", rank=lambda i: RANK + i % 5),
    "LoKr": lokr,
    "LoHa": loha,
    "diff": diff,
}
"""Format -> writer of changes as a file's tensors."""


def opened(path: Path, scale: float = 1.0, expert: str = HIGH) -> LoraFile:
    """Open a LoRA file for an expert."""
    return LoraFile(Lora(path.name, scale, expert), path, probe_lora(read_header(path), local=True))


def lora_file(tensors: Tensors, folder: Path, scale: float = 1.0, expert: str = HIGH) -> LoraFile:
    """Write a LoRA file under a new name into a folder, and open it."""
    path = folder / f"{len(list(folder.iterdir()))}.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return opened(path, scale, expert)
