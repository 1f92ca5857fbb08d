"""Shared by the routes: check who asks, read a body, and answer with a result or with the sentence of an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from ...pipeline.node_inputs import NodeInputs

BODY_SECONDS = 10.0
"""Timeout of a body."""


def check_page(request: web.Request) -> None:
    """Raise HTTPForbidden for a request that another site's page sent."""
    from ...pipeline.http.page_origin import other_site_fault

    _refuse(other_site_fault(headers_of(request)))


def check_owner(request: web.Request) -> None:
    """Raise HTTPForbidden as `check_page` does, and for a request under a public name: for keys and money."""
    from ...pipeline.http.page_origin import other_site_fault, public_name_fault

    headers = headers_of(request)
    _refuse(other_site_fault(headers) or public_name_fault(headers))


def headers_of(request: web.Request) -> dict[str, str]:
    """Return the request's headers by their names in lower case."""
    return {name.lower(): value for name, value in request.headers.items()}


def _refuse(fault: str) -> None:
    if fault:
        raise web.HTTPForbidden(text=fault)


async def read_body(request: web.Request, most: int) -> bytes:
    """Return the body as it came. Raises HTTPException when it is longer than `most` bytes, or does not come."""

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
    """Return the body of a request of type application/json, unparsed. Raises HTTPException as `read_body` does.

    Asking for the type keeps plain forms of other sites out: a browser asks before it sends JSON across sites.
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="This route takes application/json.")
    return await read_body(request, most)


async def answer_inputs(request: web.Request, kinds: Mapping[str, type],
                        find: Callable[[NodeInputs], Awaitable[dict[str, Any]]]) -> web.Response:
    """Answer a node's note: what `find` returns for the inputs in the body, or {"fault": sentence} for what it raises.

    kinds: the node's inputs and their types. Raises HTTPException for another site's page and for a body that holds
    something else.
    """
    from ...pipeline.http.errors import DownloadError
    from ...pipeline.node_inputs import MAX_BODY, read_inputs
    from ...pipeline.remote.errors import RemoteError
    from ...pipeline.request import RequestError

    check_page(request)
    body = await read_json(request, MAX_BODY)
    try:
        return web.json_response(await find(read_inputs(body, kinds)))
    except (RequestError, DownloadError, RemoteError) as error:
        return web.json_response({"fault": str(error)})
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def shown(find: Callable[..., object], *given: object) -> web.Response:
    """Answer with what a function returns, in a thread, as JSON. Raises HTTPConflict with the sentence of its error."""
    try:
        return web.json_response(await asyncio.to_thread(find, *given))
    except ValueError as error:
        raise web.HTTPConflict(text=str(error)) from None
    except OSError as error:
        raise web.HTTPConflict(text=f"A file could not be read: {error.strerror}.") from None


async def saved(save: Callable[..., object], *given: object, **options: object) -> None:
    """Call a function that saves something, in a thread. Raises HTTPException with the sentence of its error."""
    try:
        await asyncio.to_thread(save, *given, **options)
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    except OSError as error:
        raise web.HTTPInsufficientStorage(text=f"It was not saved: {error.strerror}.") from None
