"""Receive the bodies of the API's requests: bounded in size, in time, and in how many there are at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError

from ...pipeline.serve.errors import ApiError

if TYPE_CHECKING:
    from ...pipeline.serve.uploads import Incoming, Upload

MOST = 14_000_000
"""Bytes of a JSON body: a picture of 10 MB in base64, and the rest of the request."""
GRACE = 10.0
"""Seconds for which a body may be slow, and in which each piece must come."""
BODIES_AT_ONCE = 16
"""Bodies that are received and answered at the same time; the others wait for their turn."""
OF_A_KEY = 4
"""Of these, so many of one key: slow ones hold up no other key's."""
PATIENCE = 30.0
"""Seconds for which a request waits for its turn to send its body."""
SLOWEST = 10_000
"""Bytes a second that a body must have on average after that."""
PIECE = 2**20
"""Bytes that are written at once."""
MALFORMED = (ValueError, AssertionError, RuntimeError, TypeError, HttpProcessingError)
"""What aiohttp raises for a body, or a form in it, that it cannot read."""
FILES = ("application/octet-stream", "image/jpeg", "image/png", "image/webp")
"""Types of a body that is a file."""


async def json_body(request: web.Request) -> bytes:
    """Return a JSON body, unparsed. Raises ApiError."""
    _refuse_packed(request)
    if request.content_type != "application/json":
        raise ApiError("unsupported_media_type", "Send the request as application/json.")
    if (request.content_length or 0) > MOST:
        raise _too_large()
    body = bytearray()
    async for piece in _in_time(request.content.readany):
        body += piece
        if len(body) > MOST:
            raise _too_large()
    return bytes(body)


async def receive_file(request: web.Request, incoming: Incoming) -> Upload:
    """Receive an upload, as the body or as the field `file` of a form; return it. Raises ApiError."""
    _refuse_packed(request)
    try:
        waiting = bytearray()
        async for piece in _in_time(await _reader(request)):
            waiting += piece
            if len(waiting) >= PIECE:
                await asyncio.to_thread(incoming.write, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(incoming.write, bytes(waiting))
        return await asyncio.to_thread(incoming.keep)
    finally:
        await asyncio.to_thread(incoming.close)


async def _reader(request: web.Request) -> Callable[[], Awaitable[bytes]]:
    """Return what reads the next piece of an uploaded file, b"" at its end."""
    if request.content_type in FILES:
        return request.content.readany
    if request.content_type != "multipart/form-data":
        raise ApiError("unsupported_media_type", "Send the file as application/octet-stream, or in a form "
                                                 "(multipart/form-data) as the field `file`.")
    try:
        part = await asyncio.wait_for(_file_part(request), GRACE)
    except asyncio.TimeoutError:
        raise _too_slow() from None
    except MALFORMED as error:
        raise _unreadable(error) from None
    if part is None:
        raise ApiError("bad_request", "The form has no field `file`.")
    return lambda: part.read_chunk(2**16)


async def _file_part(request: web.Request) -> BodyPartReader | None:
    form = await request.multipart()
    while (part := await form.next()) is not None:
        if isinstance(part, BodyPartReader) and part.name == "file":
            return part
    return None


async def _in_time(read: Callable[[], Awaitable[Any]]) -> AsyncIterator[bytes]:
    """Yield the pieces of a body. Raises ApiError (too_slow) when they do not come in time, bad_request when the body
    breaks off."""
    begun, size = time.monotonic(), 0
    while True:
        try:
            piece = await asyncio.wait_for(read(), GRACE)
        except asyncio.TimeoutError:
            raise _too_slow() from None
        except MALFORMED as error:
            raise _unreadable(error) from None
        if not piece:
            return
        size += len(piece)
        if time.monotonic() - begun > GRACE + size / SLOWEST:
            raise _too_slow()
        yield bytes(piece)


class Places:
    """Places for bodies that are being received, of one kind: slow uploads leave those of short requests alone."""

    def __init__(self) -> None:
        self._changed, self._held = asyncio.Condition(), Counter[str]()

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it. Raises ApiError: rate_limited when the key's own requests hold all that it may
        have, unavailable when none is free."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._is_free(key)), PATIENCE)
            except asyncio.TimeoutError:
                raise self._refusal(key) from None
            self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            async with self._changed:
                self._changed.notify_all()

    def _is_free(self, key: str) -> bool:
        return self._held[key] < OF_A_KEY and self._held.total() < BODIES_AT_ONCE

    def _refusal(self, key: str) -> ApiError:
        if self._held[key] < OF_A_KEY:
            return ApiError("unavailable", "Too many requests are being received. Try again in a moment.",
                            headers={"Retry-After": "5"})
        return ApiError("rate_limited", f"{OF_A_KEY} requests of this key are being received, which is the most. Wait "
                                        "for one to end.", headers={"Retry-After": "5"})


def _refuse_packed(request: web.Request) -> None:
    """Raise ApiError for a body that unpacks, perhaps to a thousand times its size."""
    if packed := request.headers.get("Content-Encoding", ""):
        raise ApiError("unsupported_media_type", f"The body comes with Content-Encoding: {packed[:40]}. Send it as it "
                                                 "is.")


def _unreadable(error: BaseException) -> ApiError:
    return ApiError("bad_request", f"The body cannot be read ({type(error).__name__}). Is its form complete?")


def _too_large() -> ApiError:
    return ApiError("too_large", f"The body is larger than {MOST // 10**6} MB. Upload the picture with POST uploads, "
                                 "or give its link.")


def _too_slow() -> ApiError:
    return ApiError("too_slow", "The body did not come in time. Send it again.")
