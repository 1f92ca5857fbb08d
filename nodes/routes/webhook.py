"""POST /wan22/webhook/{provider}/{job}: a provider's webhook about a job; 404 unless a public URL is set."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from .exchange import headers_of, read_body

AT_ONCE = 16
"""Webhooks at the same time; the others get a 503, and the provider repeats them."""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the route. folder: the pack's system user directory."""
    slots = asyncio.Semaphore(AT_ONCE)

    @routes.post("/wan22/webhook/{provider}/{job}")
    async def webhook(request: web.Request) -> web.Response:
        from ...pipeline.remote import signatures
        from ...pipeline.remote.webhooks import receiver

        if slots.locked():
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"})
        async with slots:
            try:
                if not await asyncio.to_thread(receiver.is_on, folder):
                    raise web.HTTPNotFound
                body = await read_body(request, receiver.MAX_BODY)
                found = signatures.WebhookRequest(headers_of(request), body)
                status = await asyncio.to_thread(receiver.receive, folder, request.match_info["provider"],
                                                 request.match_info["job"], found)
            except ValueError:  # settings or a database that cannot be used: a run says so to the user
                status = receiver.LATER
        return web.Response(status=status)
