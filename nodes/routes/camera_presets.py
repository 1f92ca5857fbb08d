"""GET /wan22/camera_presets: the named camera paths, [{"name": "zoom in", "path": {...}}, ...]."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the route. folder: the pack's system user directory."""

    @routes.get("/wan22/camera_presets")
    async def camera_presets(request: web.Request) -> web.Response:
        from ...pipeline.motion.presets import PRESETS

        return web.json_response([{"name": name, "path": path} for name, path in PRESETS.items()])
