"""ComfyUI's folders and the pack's places in them. Imports nothing heavy: schemas and routes need it at start-up."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..lora.bundled import named_file
from ..serve.upload_names import uploaded_lora

DOWNLOADS, UPLOADS = "wan22_downloads", "wan22_uploads"
"""Names of the folders of the download cache and of the API's uploads, beside the model folders."""


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


def upload_folder() -> Path:
    """Return the folder of LoRAs that programs have uploaded for the API."""
    return Path(folder_paths.models_dir, UPLOADS)


def model_folders(*kinds: str) -> list[Path]:
    """Return the folders of these kinds ("vae", "diffusers" ...), those of extra_model_paths.yaml included."""
    return [Path(path) for kind in kinds for path in folder_paths.get_folder_paths(kind)]


def lora_file(name: str) -> Path | None:
    """Return a file of the loras folders by the name that ComfyUI lists it under, one of the bundled pair, or one that
    was uploaded for the API, by `upload:` and its SHA-256."""
    return uploaded_lora(upload_folder(), name) or named_file(name, folder_paths.get_full_path)
