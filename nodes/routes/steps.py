"""POST /wan22/steps: which steps each expert takes, for the inputs of a sampler as they stand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from .exchange import check_page, read_json


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put it on the server. folder: the pack's system user directory."""

    @routes.post("/wan22/steps")
    async def steps(request: web.Request) -> web.Response:
        from ...pipeline.node_inputs import MAX_BODY, read_inputs
        from ...pipeline.request import RequestError
        from ...pipeline.sampling.schedule import INPUTS, preview_steps

        check_page(request)
        body = await read_json(request, MAX_BODY)
        try:
            return web.json_response(asdict(preview_steps(read_inputs(body, INPUTS))))
        except RequestError as error:
            return web.json_response({"fault": str(error)})
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
