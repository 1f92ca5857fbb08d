"""Apply LoRAs with ComfyUI's own arithmetic: to Wan22Model's experts, and as patches on its MODELs."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.lora
import comfy.utils
import torch
from comfy.weight_adapter.base import WeightAdapterBase

from ..lora.apply import add_loras, open_loras
from ..lora.match import LoraFile
from ..lora.patches import Algebra, to_magnitude
from ..lora.probe import check_fits
from ..lora.source import Fetch, lora_fetcher
from ..models.host import Targets
from ..request import HIGH, Lora
from .files import tokens
from .folders import download_folder, lora_file, system_folder
from .node import show_text, stop_if_asked


class _DoRA(WeightAdapterBase):
    """DoRA by lora/patches.py `to_magnitude`.

    ComfyUI 0.30's own divides rows by |W| and broadcasts a 1-D m over the wrong axis (its pull requests 15458, 13011).
    """

    name = "dora"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, torch.Tensor]) -> None:
        """weights: the change, one of ComfyUI's patches, and its magnitudes."""
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight: torch.Tensor, key: str, strength: float, strength_model: float, offset: None,
                         function: Callable[[torch.Tensor], torch.Tensor], *options: Any) -> torch.Tensor:
        """See WeightAdapterBase."""
        change, magnitude = self.weights
        return to_magnitude(weight, _add([(1.0, change, 1.0, None, function)], weight.clone(), key), magnitude,
                            strength)


def _add(patches: list[tuple[Any, ...]], weight: torch.Tensor, name: str) -> torch.Tensor:
    """Add ComfyUI's patches to a weight, in place and in its own dtype."""
    return comfy.lora.calculate_weight(patches, weight, name, intermediate_dtype=weight.dtype)


ALGEBRA = Algebra(load=functools.partial(comfy.lora.load_lora, log_missing=False), add=_add,
                  dora=lambda name, change, magnitude: _DoRA({name}, (change, magnitude)))


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
    return add_loras(models, files, _model_targets, _model_with_patches, ALGEBRA.read)


def _model_targets(model: Any) -> Targets:
    return {name.removesuffix(".weight"): (f"diffusion_model.{name}", tuple(value.shape))
            for name, value in model.model.diffusion_model.named_parameters()}


def _model_with_patches(model: Any, changes: Mapping[str, Any], file: LoraFile, expert: str) -> Any:
    patched = model.clone()
    patched.add_patches(changes, file.lora.scale)
    # ComfyUI works all weights out anew under a new id; the same file at the same scale gets the same one.
    stat = file.path.stat()
    patched.patches_uuid = uuid.uuid5(model.patches_uuid, f"{file.path} {stat.st_size} {stat.st_mtime_ns} "
                                                          f"{file.lora.scale!r} {expert}")
    return patched
