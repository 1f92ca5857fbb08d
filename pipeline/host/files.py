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
    """Return the user's download tokens, from the environment, else from the pack's key store."""
    return Tokens(store=system_folder() / "keys.json")


def new_output_file(prefix: str, width: int, height: int, suffix: str) -> Path:
    """Return a path in ComfyUI's output folder that no file has yet.

    A slash at the prefix's end, or a doubled one, is dropped: ComfyUI's counter would stay at 1. Raises RequestError
    when the folder cannot be made, and for a prefix that leads out of the output folder.
    """
    folder, name, counter = _place_in_output(prefix, width, height)
    paths = (folder / f"{name}_{number:05}_{suffix}" for number in itertools.count(counter))
    return next(path for path in paths if not path.exists())


def output_folder_of(prefix: str, width: int, height: int, suffix: str) -> Path:
    """Return the folder in ComfyUI's output folder for more files of that prefix; it is the same each time.

    Raises as `new_output_file` does.
    """
    folder, name, _ = _place_in_output(prefix, width, height)
    return folder / f"{name}{suffix}"


def _place_in_output(prefix: str, width: int, height: int) -> tuple[Path, str, int]:
    """Return the folder of a prefix, which is made, the beginning of a file's name, and the next free number."""
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            os.path.normpath(prefix), folder_paths.get_output_directory(), width, height)
    except OSError as error:
        raise RequestError(f"The folder for {prefix} cannot be made: {error.strerror or error}. Choose another in "
                           "filename_prefix.") from error
    except Exception as error:  # ComfyUI raises a plain Exception
        raise RequestError(f"filename_prefix is {prefix!r}, which leads out of ComfyUI's output folder. Choose a name "
                           "inside, such as wan22/clip.") from error
    return Path(folder), name, counter


def shown_in_output(path: Path) -> dict[str, str] | None:
    """Return the query of /view for a file in the output folder; None for a file elsewhere."""
    return shown_in(output_folder(), path)


def output_path(name: str) -> Path:
    """Return the path of a file in ComfyUI's output folder. Raises RequestError for one that is missing or outside."""
    try:
        path = Path(folder_paths.get_annotated_filepath(f"{name} [output]"))
    except ValueError:
        path = None
    if path is None or not path.is_file():
        raise RequestError(f"{name} is not in ComfyUI's output folder. Refresh the list of files (R on the canvas), or "
                           "choose another.")
    return path


def workflow_metadata(prompt: Any, extra_pnginfo: dict[str, Any] | None) -> dict[str, str]:
    """Return the graph as metadata from which the canvas restores it; {} under --disable-metadata."""
    if args.disable_metadata:
        return {}
    found = {**(extra_pnginfo or {}), **({} if prompt is None else {"prompt": prompt})}
    return {key: json.dumps(value) for key, value in found.items()}
