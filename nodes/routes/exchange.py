"""What the routes share: who may ask, and how a body is read."""

from __future__ import annotations

import asyncio

from aiohttp import web

BODY_SECONDS = 10.0
"""For a body to come."""


def check_page(request: web.Request) -> None:
    """Raise HTTPForbidden for a request that another site's page sent."""
    from ...pipeline.remote.page_origin import other_site_fault

    _refuse(other_site_fault(_headers(request)))


def check_owner(request: web.Request) -> None:
    """The same, and for a request under a public name: what keeps keys and money asks this."""
    from ...pipeline.remote.page_origin import other_site_fault, public_name_fault

    headers = _headers(request)
    _refuse(other_site_fault(headers) or public_name_fault(headers))


def _headers(request: web.Request) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _refuse(fault: str) -> None:
    if fault:
        raise web.HTTPForbidden(text=fault)


async def read_body(request: web.Request, most: int) -> bytes:
    """The body as it came. Raises HTTPException when it is longer than `most` bytes, or does not come."""

    async def read() -> bytes:
        body = b""
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > most:
                raise web.HTTPRequestEntityTooLarge(most, len(body))
        return body

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout from None


async def read_json(request: web.Request, most: int) -> bytes:
    """The body of a request that says it is JSON, still to be parsed. Raises HTTPException as `read_body` does.

    Asking for the type keeps plain forms of other sites out: a browser asks before it sends JSON across sites.
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="This takes application/json.")
    return await read_body(request, most)
