"""Put LoRAs on ComfyUI's MODELs as patches, and fetch them with its progress bar, Stop, folders and keys."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.utils
import torch
from comfy.weight_adapter.base import WeightAdapterBase

from ..lora.apply import add_loras, open_loras
from ..lora.arithmetic import ModulePatch
from ..lora.changes import Targets
from ..lora.match import LoraFile
from ..lora.probe import check_fits
from ..lora.source import Fetch, lora_fetcher
from ..models.patches import with_changes
from ..request import HIGH, Lora
from .files import tokens
from .folders import download_folder, lora_file, system_folder
from .node import show_text, stop_if_asked


class _Patch(WeightAdapterBase):
    """A patch of a LoRA by lora/arithmetic.py, among ComfyUI's own."""

    name = "wan22"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        """weights: the names of the parts, their tensors, factor and constraint; ComfyUI may replace the tensors."""
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, *options: Any) -> torch.Tensor:
        """See WeightAdapterBase."""
        names, tensors, factor, constraint = self.weights
        return with_changes(weight, [(strength, ModulePatch(dict(zip(names, tensors, strict=True)), factor,
                                                            constraint))])


def downloader(node_id: str | None) -> Fetch:
    """Return a function that fetches LoRA files, with ComfyUI's progress bar, Stop, folders and keys."""
    return lora_fetcher(download_folder(), system_folder(), tokens(),
                        lambda: comfy.utils.ProgressBar(1).update_absolute, lambda text: show_text(node_id, text),
                        stop_if_asked)


def models_with_loras(models: Mapping[str, Any], loras: Sequence[Lora], node_id: str | None,
                      ) -> tuple[dict[str, Any], list[str]]:
    """Return clones of the MODELs with the LoRAs as patches, as ComfyUI's loader makes them, and a line on each LoRA.

    `models` are Wan 2.2 I2V-A14B experts, by HIGH and LOW. Raises as `open_loras` and `add_loras` do.
    """
    transformer = models[HIGH].model.diffusion_model
    files = open_loras(loras, lora_file, downloader(node_id), stop_if_asked,
                       lambda facts: check_fits(facts, transformer.dim, len(transformer.blocks)))
    return add_loras(models, files, _model_targets, _model_with_patches)


def _model_targets(model: Any) -> Targets:
    return {name.removesuffix(".weight"): (f"diffusion_model.{name}", tuple(value.shape))
            for name, value in model.model.diffusion_model.named_parameters()}


def _model_with_patches(model: Any, changes: Mapping[str, Any], file: LoraFile, expert: str) -> Any:
    patched = model.clone()
    patched.add_patches({name: _Patch(set(), (tuple(change.parts), tuple(change.parts.values()), change.factor,
                                              change.constraint)) for name, change in changes.items()},
                        file.lora.scale)
    # ComfyUI works all weights out anew under a new id; the same file at the same scale gets the same one.
    stat = file.path.stat()
    patched.patches_uuid = uuid.uuid5(model.patches_uuid, f"{file.path} {stat.st_size} {stat.st_mtime_ns} "
                                                          f"{file.lora.scale!r} {expert} {file.facts.alphas!r}")
    return patched
