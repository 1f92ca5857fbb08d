"""The owner's side of the API: its settings, keys and models.

GET /wan22/serving                   settings, names of keys, models: see pipeline/serve/settings_page.py
POST /wan22/serving                  change settings: {"on": true, "retention_days": null}; answers as GET does
POST /wan22/serving/keys             {"name"}: make a key; the one answer that holds it
DELETE /wan22/serving/keys           {"name"}: revoke it; answers as GET /wan22/serving does
POST, DELETE /wan22/serving/models   {"name", "graph"}: save a workflow in API form; {"name"}: remove it
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .exchange import check_owner, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""

    async def state() -> web.Response:
        from ...pipeline.host.serving import has_file
        from ...pipeline.serve import settings_page

        return await shown(settings_page.shown, folder, has_file)

    async def body(request: web.Request) -> bytes:
        from ...pipeline.serve import settings_page

        check_owner(request)
        return await read_json(request, settings_page.MAX_BODY)

    @routes.get("/wan22/serving")
    async def settings(request: web.Request) -> web.Response:
        check_owner(request)
        return await state()

    @routes.post("/wan22/serving")
    async def change(request: web.Request) -> web.Response:
        from ...pipeline.serve import settings_page

        await saved(settings_page.change, folder, await body(request))
        return await state()

    @routes.post("/wan22/serving/keys")
    async def make_key(request: web.Request) -> web.Response:
        from ...pipeline.serve import settings_page

        return await shown(settings_page.make_key, folder, await body(request))

    @routes.delete("/wan22/serving/keys")
    async def revoke_key(request: web.Request) -> web.Response:
        from ...pipeline.serve import settings_page

        await saved(settings_page.revoke_key, folder, await body(request))
        return await state()

    @routes.post("/wan22/serving/models")
    async def keep_model(request: web.Request) -> web.Response:
        from ...pipeline.serve import settings_page

        await saved(settings_page.keep_model, folder, await body(request))
        return await state()

    @routes.delete("/wan22/serving/models")
    async def drop_model(request: web.Request) -> web.Response:
        from ...pipeline.serve import settings_page

        await saved(settings_page.drop_model, folder, await body(request))
        return await state()
