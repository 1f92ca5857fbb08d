"""Download a finished clip from the provider's file host: checked, onto the disk whole or not at all."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..files.atomic import remove_if_present, retry_while_held
from ..http.errors import DownloadError, TransientError
from ..http.policy import Policy
from ..http.session import Response, Session
from .errors import ErrorKind, RemoteError

MAX_CLIP = 512 * 2**20
"""Bytes of a clip; 8 seconds of 720p are some 10 MB."""
PIECE = 2**18
REFUSED, GONE = (401, 403), (404, 410)
"""HTTP statuses of a link that is not valid, or no longer, and of a file that is not there."""


def fetch_clip(link: str, path: Path, policy: Policy, timeout: float, check_clip: Callable[[Path], object]) -> None:
    """Download a finished clip to `path`, for at most `timeout` seconds once connected, sending no token.

    check_clip: raises ValueError for a file that is not a whole video.
    Raises RemoteError: DOWNLOAD_EXPIRED when the link is not valid any more, LOST when there is no file, TRANSIENT
    when another try may help, INTEGRITY for what is not a whole clip, REFUSED_HERE for an address that is refused or a
    disk that does not take the file.
    """
    # Each try has a file of its own, because a run that was stopped may still be writing.
    arriving = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.arriving{path.suffix}")
    try:
        _remove_leftovers(path, timeout)
        _download(link, arriving, policy, timeout)
        check_boxes(arriving)
        try:
            check_clip(arriving)
        except ValueError as error:
            raise RemoteError(ErrorKind.INTEGRITY, f"The download is not a whole clip: {error}") from None
        retry_while_held(lambda: os.replace(arriving, path))
    except OSError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, f"The clip cannot be written to {path.parent}: "
                          f"{error.strerror or error}. Free space there, or let ComfyUI write to it.") from None
    finally:
        remove_if_present(arriving)


def _remove_leftovers(path: Path, timeout: float) -> None:
    """Remove the files of killed tries for this clip: no live one is older than `timeout` seconds."""
    for left in path.parent.glob(f".*{path.stem}.*.arriving*"):
        with suppress(OSError):  # another try may have removed it, or on Windows still hold it
            if time.time() - left.stat().st_mtime > timeout:
                left.unlink()


def _download(link: str, path: Path, policy: Policy, timeout: float) -> None:
    session, end = Session(policy), time.monotonic() + timeout
    watchdog = threading.Timer(timeout, session.abort)  # a read of a piece may take hours
    watchdog.daemon = True
    watchdog.start()
    try:
        response = session.get(link, {})
        try:
            _check_status(response)
            _write(response, path, end)
        finally:
            response.close()
    except TransientError as error:
        raise RemoteError(ErrorKind.TRANSIENT, str(error), retry_after=error.wait) from None
    except DownloadError as error:
        raise RemoteError(ErrorKind.REFUSED_HERE, str(error)) from None
    finally:
        watchdog.cancel()
        session.close()


def _check_status(response: Response) -> None:
    if response.status == 200:
        return
    if response.status in (*REFUSED, *GONE):
        kind = ErrorKind.LOST if response.status in GONE else ErrorKind.DOWNLOAD_EXPIRED
        raise RemoteError(kind, f"The link of the finished clip no longer works "
                          f"({response.status}).")
    raise RemoteError(ErrorKind.TRANSIENT, f"{response.url.host} did not send the finished clip ({response.status}).")


def _write(response: Response, path: Path, end: float) -> None:
    size, done = response.length, 0
    if size is not None and size > MAX_CLIP:
        raise _too_large(response)
    buffer = memoryview(bytearray(PIECE))
    with path.open("wb") as file:
        while True:
            count = response.read_into(buffer)
            file.write(buffer[:count])
            done += count
            if done > MAX_CLIP:
                raise _too_large(response)
            if time.monotonic() > end:
                raise RemoteError(ErrorKind.TRANSIENT, f"{response.url.host} sent the finished clip too slowly.")
            if count < len(buffer):
                break
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done != size:
        raise RemoteError(ErrorKind.INTEGRITY, f"{response.url.host} sent {done} of the {size} bytes of the clip.")


def _too_large(response: Response) -> RemoteError:
    return RemoteError(ErrorKind.INTEGRITY, f"{response.url.host} sent more than {MAX_CLIP // 2**20} MB, which no clip "
                       "has.")


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
        raise RemoteError(ErrorKind.INTEGRITY, "The download is not a whole MP4 file.")
