"""Copy the sample pictures and resume callbacks, once, as ComfyUI loads the pack. Imports nothing heavy."""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path

from .folders import input_folder, system_folder

PICTURES = Path(__file__).resolve().parent.parent.parent / "workflows" / "input"


def copy_sample_pictures() -> None:
    """Copy the shipped workflows' pictures into ComfyUI's input folder, so that each workflow runs as it is opened.

    A file that is there already is left alone.
    """
    folder = input_folder()
    for picture in PICTURES.glob("[!.]*"):  # not the .DS_Store of a folder that was looked at on macOS
        target = folder / picture.name
        try:
            if folder.is_dir() and not target.exists():
                shutil.copyfile(picture, target)
        except OSError as error:  # a folder that may not be written: the workflows then ask for a picture
            logging.warning("ComfyUI-Wan22: the sample picture %s is not in the input folder: %s", picture.name, error)


def resume_callbacks() -> None:
    """Send, in a thread of their own, the callbacks that an earlier ComfyUI did not get through."""
    folder = system_folder()
    if (folder / "jobs.sqlite").is_file():
        threading.Thread(target=_resume_callbacks, args=(folder,), name="wan22-callbacks", daemon=True).start()


def _resume_callbacks(folder: Path) -> None:
    from ..notify import notifier

    notifier.take_up(folder)
