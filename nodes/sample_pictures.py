"""The pictures of the shipped workflows, in ComfyUI's input folder: each of them runs as it is opened."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

PICTURES = Path(__file__).parent.parent / "workflows" / "input"


def offer() -> None:
    """Copy the pictures that are not there yet; a file of a person's own is never touched."""
    import folder_paths

    folder = Path(folder_paths.get_input_directory())
    for picture in PICTURES.glob("[!.]*"):  # not the .DS_Store of a folder that was looked at on macOS
        target = folder / picture.name
        try:
            if folder.is_dir() and not target.exists():
                shutil.copyfile(picture, target)
        except OSError as error:  # a folder that may not be written: the workflows then ask for a picture
            logging.warning("ComfyUI-Wan22: the sample picture %s is not in the input folder: %s", picture.name, error)
