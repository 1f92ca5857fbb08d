"""The cache of downloads.

GET /wan22/cache      what it takes on the disk, and what it may take
POST /wan22/cache     {"cache_gb": 20}, null being the default; answers as GET does
DELETE /wan22/cache   remove what was not used for a day; answers as GET does
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from .exchange import check_owner, read_json, saved, shown


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put them on the server. folder: the pack's system user directory."""

    def downloads() -> Path:
        import folder_paths

        from ...pipeline.download.cache import DOWNLOADS

        return Path(folder_paths.models_dir, DOWNLOADS)

    @routes.get("/wan22/cache")
    async def cache(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings

        check_owner(request)
        return await shown(cache_settings.shown_cache, downloads(), folder)

    @routes.post("/wan22/cache")
    async def limit(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings
        from ...pipeline.files.settings_file import MAX_BODY

        check_owner(request)
        await saved(cache_settings.save_limit, folder, await read_json(request, MAX_BODY))
        return await shown(cache_settings.shown_cache, downloads(), folder)

    @routes.delete("/wan22/cache")
    async def clean(request: web.Request) -> web.Response:
        from ...pipeline.download import cache_settings

        check_owner(request)
        await saved(cache_settings.clean_up, downloads())
        return await shown(cache_settings.shown_cache, downloads(), folder)
