"""ComfyUI-Wan22: Wan 2.2 image-to-video nodes. Nothing heavy is imported before a node runs."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES, routes, sample_pictures

WEB_DIRECTORY = "./web"
"""Pages of help and the canvas extension; every .js below is loaded by the canvas."""


class Wan22Extension(ComfyExtension):
    """The pack, as ComfyUI loads it."""

    async def on_load(self) -> None:
        routes.register()
        sample_pictures.offer()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> Wan22Extension:
    """Called once by ComfyUI at start-up."""
    return Wan22Extension()
