"""POST /wan22/webhook/{provider}/{job}: a provider tells of a job; 404 unless a public URL is set."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from .exchange import read_body

MOST_CALLBACKS = 16
"""Answered at the same time; the provider repeats the others."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Put it on the server. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(MOST_CALLBACKS)

    @routes.post("/wan22/webhook/{provider}/{job}")
    async def callback(request: web.Request) -> web.Response:
        from ...pipeline.remote.webhooks import receiver, signatures

        if slots.locked():
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"})
        async with slots:
            try:
                if not await asyncio.to_thread(receiver.is_on, folder):
                    raise web.HTTPNotFound
                body = await read_body(request, receiver.MAX_BODY)
                headers = {name.lower(): value for name, value in request.headers.items()}
                status = await asyncio.to_thread(receiver.receive, folder, request.match_info["provider"],
                                                 request.match_info["job"], signatures.Callback(headers, body))
            except ValueError:  # settings or a database that cannot be used: a run says so to the user
                status = receiver.LATER
        return web.Response(status=status)
