"""The cache of downloads.

GET /wan22/cache      its size on the disk, and its limit
POST /wan22/cache     {"cache_gb": 20}, null being the default; answers as GET does
DELETE /wan22/cache   remove what was not used for a day; answers as GET does
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from ...pipeline.host.folders import download_folder
from .exchange import check_owner, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""

    @routes.get("/wan22/cache")
    async def cache(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings

        check_owner(request)
        return await shown(cache_settings.shown_cache, download_folder(), folder)

    @routes.post("/wan22/cache")
    async def limit(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings
        from ...pipeline.files.settings_file import MAX_BODY

        check_owner(request)
        await saved(cache_settings.save_limit, folder, await read_json(request, MAX_BODY))
        return await shown(cache_settings.shown_cache, download_folder(), folder)

    @routes.delete("/wan22/cache")
    async def clean(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings

        check_owner(request)
        await saved(cache_settings.clean_up, download_folder())
        return await shown(cache_settings.shown_cache, download_folder(), folder)
