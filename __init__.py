"""ComfyUI-Wan22: Wan 2.2 image-to-video nodes. Nothing heavy is imported before a node runs."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES, routes

WEB_DIRECTORY = "./web"
"""Help pages and the canvas extension; the canvas loads every .js below it."""


class Wan22Extension(ComfyExtension):
    """The pack's nodes, and what it does once as ComfyUI loads it."""

    async def on_load(self) -> None:
        from .pipeline.host import startup

        routes.register()
        startup.copy_sample_pictures()
        startup.resume_callbacks()
        startup.serve_once_up()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> Wan22Extension:
    """Return the extension; ComfyUI calls this once at start-up."""
    return Wan22Extension()
