"""Keys that go in and never come out.

GET /wan22/keys            whose keys there are
POST, DELETE /wan22/keys   keep a key, take one out
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .exchange import check_owner, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put them on the server. folder: the pack's system user directory."""

    @routes.get("/wan22/keys")
    async def known(request: web.Request) -> web.Response:
        from ...pipeline.remote import settings_page

        check_owner(request)
        return await shown(settings_page.known_keys, folder)

    @routes.post("/wan22/keys")
    @routes.delete("/wan22/keys")
    async def save(request: web.Request) -> web.Response:
        from ...pipeline.remote import settings_page

        check_owner(request)
        body = await read_json(request, settings_page.MAX_BODY)
        await saved(settings_page.save_key, folder, body, remove=request.method == "DELETE")
        return web.Response(status=204)
