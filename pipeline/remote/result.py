"""Fetch a finished clip: off the provider's file host, checked, onto the disk. Never half a file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from ..files.atomic import clear_away, retried
from ..http.errors import DownloadError, TransientError
from ..http.policy import Policy
from ..http.session import Response, Session
from .errors import Kind, RemoteError

MAX_CLIP = 512 * 2**20
"""Bytes of a clip; 8 seconds of 720p are some 10 MB."""
PIECE = 2**18
GONE = (401, 403, 404, 410)


def fetch_clip(link: str, path: Path, policy: Policy, timeout: float) -> None:
    """Fetch a finished clip to `path`, with nobody's token. Takes `timeout` seconds at most once connected.

    Raises RemoteError: DOWNLOAD_EXPIRED when the link no longer works, TRANSIENT when another try may help, INTEGRITY
    for what is no whole MP4, REFUSED_HERE for an address that is refused; OSError when the disk fails.
    """
    session, end = Session(policy), time.monotonic() + timeout
    unfinished = path.with_name(f".{path.name}.part")
    watchdog = threading.Timer(timeout, session.abort)  # a read of a piece may take hours
    watchdog.daemon = True
    watchdog.start()
    try:
        response = session.get(link, {})
        try:
            _check(response)
            _write(response, unfinished, end)
        finally:
            response.close()
        check_boxes(unfinished)
        retried(lambda: os.replace(unfinished, path))
    except TransientError as error:
        raise RemoteError(Kind.TRANSIENT, str(error), retry_after=error.wait) from None
    except DownloadError as error:
        raise RemoteError(Kind.REFUSED_HERE, str(error)) from None
    finally:
        watchdog.cancel()
        session.close()
        clear_away(unfinished)


def _check(response: Response) -> None:
    if response.status == 200:
        return
    if response.status in GONE:
        raise RemoteError(Kind.DOWNLOAD_EXPIRED, f"The link of the finished clip no longer works (status "
                          f"{response.status}).")
    raise RemoteError(Kind.TRANSIENT, f"{response.url.host} does not hand out the finished clip (status "
                      f"{response.status}).")


def _write(response: Response, path: Path, end: float) -> None:
    size, done = response.length, 0
    if size is not None and size > MAX_CLIP:
        raise _too_long(response)
    buffer = memoryview(bytearray(PIECE))
    with path.open("wb") as file:
        while True:
            count = response.read_into(buffer)
            file.write(buffer[:count])
            done += count
            if done > MAX_CLIP:
                raise _too_long(response)
            if time.monotonic() > end:
                raise RemoteError(Kind.TRANSIENT, f"{response.url.host} sends the finished clip too slowly.")
            if count < len(buffer):
                break
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done != size:
        raise RemoteError(Kind.INTEGRITY, f"{response.url.host} sent {done} of the {size} bytes of the clip.")


def _too_long(response: Response) -> RemoteError:
    return RemoteError(Kind.INTEGRITY, f"{response.url.host} sends more than {MAX_CLIP // 2**20} MB, which no clip is.")


def check_boxes(path: Path) -> None:
    """Raise RemoteError (INTEGRITY) unless the file is a row of whole MP4 boxes with ftyp and moov (ISO 14496-12)."""
    size, seen = path.stat().st_size, []
    with path.open("rb") as file:
        position = 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length, name = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            elif length == 0:
                length = size - position
            if length < 8 or position + length > size:
                break
            seen.append(name)
            position += length
    if position != size or seen[:1] != [b"ftyp"] or b"moov" not in seen:
        raise RemoteError(Kind.INTEGRITY, "What came is no whole MP4 file.")
