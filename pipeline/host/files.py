"""Files in ComfyUI's output folder, the pack's key store, and the graph as a file's metadata."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args

from ..files.names import shown_in
from ..http.secrets import Tokens
from ..request import RequestError
from .folders import output_folder, system_folder


def tokens() -> Tokens:
    """The user's tokens: of the environment, else of a key store that ComfyUI's server hands out to nobody."""
    return Tokens(store=system_folder() / "keys.json")


def new_output_file(prefix: str, width: int, height: int, suffix: str) -> Path:
    """Return a path in ComfyUI's output folder that no file has yet.

    A slash at the prefix's end, or a doubled one, is left out: ComfyUI's counter would stay at 1. Raises RequestError
    for a prefix that leads out of the folder.
    """
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            os.path.normpath(prefix), folder_paths.get_output_directory(), width, height)
    except OSError as error:
        raise RequestError(f"The folder for {prefix} cannot be made: {error.strerror or error}. Choose another in "
                           "filename_prefix.") from error
    except Exception as error:  # ComfyUI's own, of no class of its own
        raise RequestError(f"filename_prefix is {prefix!r}, which leads out of ComfyUI's output folder. Choose a name "
                           "inside, such as wan22/clip.") from error
    paths = (Path(folder) / f"{name}_{number:05}_{suffix}" for number in itertools.count(counter))
    return next(path for path in paths if not path.exists())


def shown_in_output(path: Path) -> dict[str, str] | None:
    """How the canvas asks for a file of the output folder; None for one that lies elsewhere, which it cannot get."""
    return shown_in(output_folder(), path)


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
