"""The pack's routes on ComfyUI's server: providers' callbacks, and keys that go in and never come out.

POST /wan22/webhook/{provider}/{job}   a provider tells of a job; 404 unless a public URL is set
GET /wan22/keys                        whose keys there are
POST, DELETE /wan22/keys               keep a key, take one out
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

MOST_CALLBACKS = 16
"""Answered at the same time; the provider repeats the others."""
BODY_SECONDS = 10.0
"""For a body to come."""


def register() -> None:
    """Put the routes on the server, and go on telling callbacks that an earlier ComfyUI left untold."""
    import folder_paths
    from aiohttp import web
    from server import PromptServer

    folder = Path(folder_paths.get_system_user_directory("wan22"))
    routes, slots = PromptServer.instance.routes, asyncio.Semaphore(MOST_CALLBACKS)

    @routes.post("/wan22/webhook/{provider}/{job}")
    async def webhook(request: web.Request) -> web.Response:
        from ..pipeline.remote import webhook, webhook_receiver

        if slots.locked():
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"})
        async with slots:
            try:
                if not await asyncio.to_thread(webhook_receiver.is_on, folder):
                    raise web.HTTPNotFound
                body = await _body(request, webhook_receiver.MAX_BODY)
                headers = {name.lower(): value for name, value in request.headers.items()}
                status = await asyncio.to_thread(webhook_receiver.receive, folder, request.match_info["provider"],
                                                 request.match_info["job"], webhook.Callback(headers, body))
            except ValueError:  # settings or a database that cannot be used: a run says so to the user
                status = webhook_receiver.LATER
        return web.Response(status=status)

    @routes.get("/wan22/keys")
    async def known(request: web.Request) -> web.Response:
        from ..pipeline.remote import key_desk

        _check_page(request)
        try:
            return web.json_response(await asyncio.to_thread(key_desk.known_keys, folder))
        except ValueError as error:
            raise web.HTTPConflict(text=str(error)) from None

    @routes.post("/wan22/keys")
    @routes.delete("/wan22/keys")
    async def save(request: web.Request) -> web.Response:
        from ..pipeline.remote import key_desk

        _check_page(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Keys are sent as application/json.")
        body = await _body(request, key_desk.MAX_BODY)
        try:
            await asyncio.to_thread(key_desk.save_key, folder, body, remove=request.method == "DELETE")
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=f"The key was not kept: {error.strerror}.") from None
        return web.Response(status=204)

    _go_on_telling(folder)


def _check_page(request: web.Request) -> None:
    from aiohttp import web

    from ..pipeline.remote import key_desk

    fault = key_desk.origin_fault({name.lower(): value for name, value in request.headers.items()})
    if fault:
        raise web.HTTPForbidden(text=fault)


async def _body(request: web.Request, most: int) -> bytes:
    """The body as it came. Raises HTTPException when it is too long, or does not come."""
    from aiohttp import web

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


def _go_on_telling(folder: Path) -> None:
    """In a thread of its own: a server's start waits for no import and no file."""
    import threading

    def work() -> None:
        from ..pipeline.remote import notify

        notify.take_up(folder)

    if (folder / "jobs.sqlite").is_file():
        threading.Thread(target=work, name="wan22-callbacks", daemon=True).start()
