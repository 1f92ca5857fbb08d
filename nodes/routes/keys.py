"""The key store: keys go in and never come out.

GET /wan22/providers       whose keys there can be: {"providers": [{name, title, key_name, keys_page, variables,
                           concurrent}], "services": [{name, title, variables}], "callback": {name, variables}}
GET /wan22/keys            the names of the keys that there are
POST, DELETE /wan22/keys   save a key, remove one
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .exchange import check_owner, check_page, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""

    @routes.get("/wan22/providers")
    async def providers(request: web.Request) -> web.Response:
        from ...pipeline.remote import settings_page

        check_page(request)
        return await shown(settings_page.shown_providers)

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
