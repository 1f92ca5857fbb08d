"""ComfyUI's folders and the pack's places in them. Imports nothing heavy: schemas and routes need it at start-up."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..lora.bundled import named_file

DOWNLOADS = "wan22_downloads"
"""Name of the download cache's folder, beside the model folders."""


def system_folder() -> Path:
    """Return the pack's folder of keys, settings and the ledger, which ComfyUI's server does not serve."""
    return Path(folder_paths.get_system_user_directory("wan22"))


def output_folder() -> Path:
    """Return ComfyUI's output folder."""
    return Path(folder_paths.get_output_directory())


def input_folder() -> Path:
    """Return ComfyUI's input folder."""
    return Path(folder_paths.get_input_directory())


def download_folder() -> Path:
    """Return the cache of downloads: beside the model folders, where a big disk is, and in none that ComfyUI lists."""
    return Path(folder_paths.models_dir, DOWNLOADS)


def model_folders(*kinds: str) -> list[Path]:
    """Return the folders of these kinds ("vae", "diffusers" ...), those of extra_model_paths.yaml included."""
    return [Path(path) for kind in kinds for path in folder_paths.get_folder_paths(kind)]


def lora_file(name: str) -> Path | None:
    """Return a file of the loras folders by the name that ComfyUI lists it under, or one of the bundled pair."""
    return named_file(name, folder_paths.get_full_path)
