"""POST /wan22/quote: what a remote clip will cost, for the inputs of Remote Image to Video as they stand."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .exchange import answer_inputs

if TYPE_CHECKING:
    from ...pipeline.node_inputs import NodeInputs

AT_ONCE = 3
"""Quotes at the same time; others wait for their turn."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the route. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    @routes.post("/wan22/quote")
    async def quoted(request: web.Request) -> web.Response:
        from ...pipeline.remote.quote import INPUTS, quote

        async def find(inputs: NodeInputs) -> dict[str, Any]:
            async with slots:
                return asdict(await quote(inputs, folder))

        return await answer_inputs(request, INPUTS, find)
