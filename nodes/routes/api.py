"""The API for other programs: the operations of pipeline/serve/operations.py, below /wan22/api/v1 and v3."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ...pipeline.serve.errors import ApiError, not_found
from ...pipeline.serve.operations import BASE, GUIDE_BASE, MP4, OPERATIONS, Operation, methods_of
from .api_body import Places, json_body, receive_file
from .exchange import headers_of

if TYPE_CHECKING:
    from ...pipeline.serve.service import Service

HOST = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,260}")
log = logging.getLogger("wan22")


@dataclass(frozen=True)
class Call:
    """A request that was let in."""

    request: web.Request
    service: Service
    key: str
    """Name of its key; "" where none is asked for."""
    body: bytes = b""
    """Its JSON, unparsed."""

    @property
    def id(self) -> str:
        """Id of the prediction in the path, as it is stored."""
        return self.request.match_info["id"].lower()

    @property
    def base(self) -> str:
        """Scheme and host of this server, as the client has them."""
        return f"{self.request.scheme}://{self.request.host}" if HOST.fullmatch(self.request.host) else ""


def register(routes: web.RouteTableDef, folder: Path) -> None:
    """Add the routes. folder: the pack's system user directory."""
    uploads, requests = Places(), Places()
    for operation in (one for one in OPERATIONS if one.method != "HEAD"):  # aiohttp answers it as the path's GET
        places = uploads if operation.takes_file else requests
        routes.route(operation.method, operation.base + operation.path)(_route(operation, folder, places))

    async def unknown(request: web.Request) -> web.Response:
        path = request.path.removeprefix("/api")  # ComfyUI has each route twice
        methods = methods_of(path)
        if not methods:
            return _refusal(not_found("route"))
        return _refusal(ApiError("method_not_allowed", f"{path} takes {', '.join(methods)}.",
                                 headers={"Allow": ", ".join(methods)}))

    for base in (BASE, GUIDE_BASE):
        routes.route("*", base + "/{path:.*}")(unknown)


def _route(operation: Operation, folder: Path, places: Places) -> Callable[[web.Request], Any]:
    """Return what answers an operation: every error in the one shape, and nothing of what went wrong inside."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            call = await _admit(operation, request, folder)
            async with places.place(call.key) if operation.has_body else nullcontext():
                return await _answered(operation, call)
        except ApiError as error:
            return _refusal(error)
        except (ValueError, OSError) as error:  # settings, a key store or a database that cannot be used
            log.warning("Wan 2.2: the API cannot answer %s: %s", operation.name, error)
            return _refusal(ApiError("unavailable", "The server cannot answer now. Its log says why.",
                                     headers={"Retry-After": "60"}))

    return answer


async def _admit(operation: Operation, request: web.Request, folder: Path) -> Call:
    """Let a request in: the API is on, no page of another site asks, the key is valid and has requests left."""
    from ...pipeline.http.page_origin import other_site_fault

    fault = other_site_fault(headers_of(request))
    if fault and operation.name != "file":  # a signed link may be shown on any page
        raise ApiError("forbidden", "The API is not for pages of other sites. Call it from your own server.")

    def admit() -> Call:
        from ...pipeline.serve import api

        api.check_on(folder)
        from ...pipeline.host.serving import service

        found = service()
        found.start()
        key = api.key_name(found, request.headers.get("Authorization", "")) if operation.has_key else ""
        if operation.has_body:
            api.check_rate(found, key)
        return Call(request, found, key)

    return await asyncio.to_thread(admit)


async def _answered(operation: Operation, call: Call) -> web.StreamResponse:
    """Answer a request that was let in."""
    from ...pipeline.serve import answers, api

    if operation.body:
        call = replace(call, body=await json_body(call.request))
    if operation.takes_file:
        found = await receive_file(call.request, api.incoming(call.service, call.key))
        return web.json_response(answers.upload(found), status=operation.status)
    if work := FILE_WORK.get(operation.name):
        return _mp4(await asyncio.to_thread(work, api, call), call.id)
    if work := JSON_WORK.get(operation.name):
        return web.json_response(await asyncio.to_thread(work, api, call), status=operation.status)
    await asyncio.to_thread(api.delete, call.service, call.key, call.id)
    return web.Response(status=operation.status)


def _refusal(error: ApiError) -> web.Response:
    return web.json_response(error.body(), status=error.status, headers=error.headers)


def _mp4(path: Path, prediction_id: str) -> web.FileResponse:
    return web.FileResponse(path, headers={
        "Content-Type": MP4, "Content-Disposition": f'inline; filename="{prediction_id}.mp4"',
        "X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"})


Work = Callable[[Any, Call], Any]
"""(pipeline/serve/api.py, the call) -> what it answers; called in a thread."""
JSON_WORK: dict[str, Work] = {
    "submit": lambda api, call: api.shown(call.service, _submitted(api, call)),
    "list": lambda api, call: api.listed(call.service, call.key, call.request.query),
    "get": lambda api, call: api.shown(call.service, api.get(call.service, call.key, call.id)),
    "cancel": lambda api, call: api.shown(call.service, api.cancel(call.service, call.key, call.id)),
    "uploaded": lambda api, call: api.uploaded(call.service, call.key, call.request.match_info["sha256"]),
    "models": lambda api, call: api.models(call.service),
    "openapi": lambda api, call: api.openapi(call.service, call.base),
    "guide_submit": lambda api, call: api.guide_shown(call.service, _submitted(api, call)),
    "guide_get": lambda api, call: api.guide_shown(call.service, api.get(call.service, call.key, call.id)),
    "guide_result": lambda api, call: api.guide_shown(call.service, api.get(call.service, call.key, call.id)),
}
FILE_WORK: dict[str, Work] = {
    "result": lambda api, call: api.result(call.service, call.key, call.id),
    "file": lambda api, call: api.linked_file(call.service, call.id, call.request.match_info["name"],
                                              call.request.query),
}


def _submitted(api: Any, call: Call) -> Any:
    return api.submit(call.service, call.key, call.body, call.request.headers.get("Idempotency-Key"), call.base)
