"""What the routes share: who may ask, how a body is read, and how what was found or refused is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

BODY_SECONDS = 10.0
"""For a body to come."""


def check_page(request: web.Request) -> None:
    """Raise HTTPForbidden for a request that another site's page sent."""
    from ...pipeline.http.page_origin import other_site_fault

    _refuse(other_site_fault(_headers(request)))


def check_owner(request: web.Request) -> None:
    """The same, and for a request under a public name: what keeps keys and money asks this."""
    from ...pipeline.http.page_origin import other_site_fault, public_name_fault

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


async def shown(find: Callable[..., object], *given: object) -> web.Response:
    """What a function finds, in a thread, as JSON. Raises HTTPConflict with its sentence for what cannot be used."""
    try:
        return web.json_response(await asyncio.to_thread(find, *given))
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from None
    except OSError as error:
        raise web.HTTPConflict(text=f"A file could not be read: {error.strerror}.") from None


async def saved(save: Callable[..., object], *given: object, **options: object) -> None:
    """Have a function save something, in a thread. Raises HTTPException with its sentence when it did not."""
    try:
        await asyncio.to_thread(save, *given, **options)
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    except OSError as error:
        raise web.HTTPInsufficientStorage(text=f"It was not saved: {error.strerror}.") from None
