"""ComfyUI's folders and what it writes into files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args

from ..request import RequestError


def new_output_file(prefix: str, width: int, height: int, suffix: str) -> tuple[Path, str]:
    """A path in ComfyUI's output folder that no file has yet, and its subfolder as ComfyUI names it."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory(), width, height)
    return Path(folder) / f"{name}_{counter:05}_{suffix}", subfolder


def output_path(name: str) -> Path:
    """Full path of a file in ComfyUI's output folder. Raises RequestError when it has gone or lies outside."""
    try:
        path = Path(folder_paths.get_annotated_filepath(f"{name} [output]"))
    except ValueError:
        path = None
    if path is None or not path.is_file():
        raise RequestError(f"{name} is not in ComfyUI's output folder. Refresh the list of files (R on the canvas), or "
                           "choose another.")
    return path


def workflow_metadata(prompt: Any, extra_pnginfo: dict[str, Any] | None) -> dict[str, str]:
    """The graph as metadata, under the names from which the canvas restores it; empty when the user disabled that."""
    if args.disable_metadata:
        return {}
    found = {**(extra_pnginfo or {}), **({} if prompt is None else {"prompt": prompt})}
    return {key: json.dumps(value) for key, value in found.items()}


def video_from(path: Path) -> Any:
    """A VIDEO of ComfyUI's that reads the file when asked."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))
