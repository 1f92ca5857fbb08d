"""POST /wan22/quote: what a remote clip will cost, for the inputs of Remote Image to Video as they stand."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from .exchange import check_page, read_json

AT_ONCE = 3


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put it on the server. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    @routes.post("/wan22/quote")
    async def quoted(request: web.Request) -> web.Response:
        from ...pipeline.node_inputs import MAX_BODY, read_inputs
        from ...pipeline.remote.errors import RemoteError
        from ...pipeline.remote.quote import INPUTS, quote
        from ...pipeline.request import RequestError

        check_page(request)
        body = await read_json(request, MAX_BODY)
        try:
            inputs = read_inputs(body, INPUTS)
            async with slots:
                return web.json_response(asdict(await quote(inputs, folder)))
        except (RequestError, RemoteError) as error:
            return web.json_response({"fault": str(error)})
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
