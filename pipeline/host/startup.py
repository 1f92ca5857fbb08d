"""Copy the sample pictures, resume callbacks and the API, once, as ComfyUI loads the pack. Imports nothing heavy."""

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


def serve_once_up() -> None:
    """Take up the API's predictions, if it is on, as soon as ComfyUI's server is up and can check graphs."""
    from server import PromptServer

    async def up(app: object) -> None:
        threading.Thread(target=_serve, name="wan22-api", daemon=True).start()

    application = PromptServer.instance.app
    application.on_startup.append(up)


def _serve() -> None:
    from ..serve.settings import read_settings

    try:
        if not read_settings(system_folder()).on:
            return
        from .serving import service

        service().start()
    except Exception as error:  # settings or a database that cannot be used: each request says so too
        logging.warning("ComfyUI-Wan22: the API was not started: %s", error)
