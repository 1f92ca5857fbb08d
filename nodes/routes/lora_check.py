"""POST /wan22/lora/check: whether the LoRAs that a node names are what they should be, by their headers alone."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from .exchange import check_page, read_json

AT_ONCE = 3
"""Others wait for their turn; each takes 20 seconds of a server's time a file at most."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put it on the server. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    @routes.post("/wan22/lora/check")
    async def check(request: web.Request) -> web.Response:
        import folder_paths

        from ...pipeline.download.cache import DOWNLOADS
        from ...pipeline.http.errors import DownloadError
        from ...pipeline.lora.bundled import named_file
        from ...pipeline.lora.header_check import INPUTS, check_loras
        from ...pipeline.node_inputs import MAX_BODY, read_inputs
        from ...pipeline.remote.errors import RemoteError
        from ...pipeline.remote.settings import read_settings
        from ...pipeline.request import RequestError

        def find(name: str) -> Path | None:
            return named_file(name, folder_paths.get_full_path)

        check_page(request)
        body = await read_json(request, MAX_BODY)
        try:
            inputs = read_inputs(body, INPUTS)
            async with slots:
                found = await asyncio.to_thread(check_loras, inputs, find, Path(folder_paths.models_dir, DOWNLOADS),
                                                folder, read_settings(folder).local_only)
        except (RequestError, DownloadError, RemoteError) as error:
            return web.json_response({"fault": str(error)})
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        files = [asdict(file) for file in found.pop("files", ())]
        return web.json_response({**found, "files": files})
