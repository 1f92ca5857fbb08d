"""The settings of all remote nodes.

GET /wan22/settings    the settings, where each comes from, and what was spent
POST /wan22/settings   change some: {"max_cost": 0.5, "local_only": null}, null being the default; answers as GET does.
                       Of a setting with entries, {"own_servers": {"work": null}}, only those given are changed
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .exchange import check_owner, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""

    @routes.get("/wan22/settings")
    async def settings(request: web.Request) -> web.Response:
        from ...pipeline.remote import settings_page

        check_owner(request)
        return await shown(settings_page.shown_settings, folder)

    @routes.post("/wan22/settings")
    async def change(request: web.Request) -> web.Response:
        from ...pipeline.files.settings_file import MAX_BODY
        from ...pipeline.remote import settings_page

        check_owner(request)
        await saved(settings_page.save_settings, folder, await read_json(request, MAX_BODY))
        return await shown(settings_page.shown_settings, folder)
