"""The pack's routes on ComfyUI's server, under /wan22/: one file a concern."""

from __future__ import annotations

from ...pipeline.host.folders import system_folder
from ...pipeline.host.server import route_table
from . import api, cache, camera_presets, jobs, keys, lora_check, quote, serving, settings, steps, webhook


def register() -> None:
    """Add the routes to the server."""
    routes, folder = route_table(), system_folder()
    for part in (api, cache, camera_presets, jobs, keys, lora_check, quote, serving, settings, steps, webhook):
        part.register(routes, folder)
