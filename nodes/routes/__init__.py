"""The pack's routes on ComfyUI's server, under /wan22/: one file a concern."""

from __future__ import annotations

from pathlib import Path


def register() -> None:
    """Put the routes on the server, and go on telling callbacks that an earlier ComfyUI left untold."""
    import folder_paths
    from server import PromptServer

    from . import cache, jobs, keys, lora_check, quote, settings, steps, webhook

    folder = Path(folder_paths.get_system_user_directory("wan22"))
    routes = PromptServer.instance.routes
    for part in (cache, jobs, keys, lora_check, quote, settings, steps, webhook):
        part.register(routes, folder)
    _go_on_telling(folder)


def _go_on_telling(folder: Path) -> None:
    """In a thread of its own: a server's start waits for no import and no file."""
    import threading

    def work() -> None:
        from ...pipeline.notify import notifier

        notifier.take_up(folder)

    if (folder / "jobs.sqlite").is_file():
        threading.Thread(target=work, name="wan22-callbacks", daemon=True).start()
