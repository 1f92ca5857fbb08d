"""The finished clip: off the provider's file host, checked, onto the disk. Never half a file."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from ..download.errors import DownloadError, TransientError
from ..download.policy import Policy
from ..download.tokens import Tokens
from ..download.transport import Answer, Client
from ..held_file import clear_away, retried
from .errors import Kind, RemoteError

MAX_CLIP = 512 * 2**20
"""Bytes of a clip; 8 seconds of 720p are some 10 MB."""
PIECE = 2**18
GONE = (401, 403, 404, 410)


class _NoTokens(Tokens):
    """Nobody's token goes to a file host."""

    def of(self, service: object) -> None:
        return None


def fetch_clip(link: str, path: Path, policy: Policy, patience: float) -> None:
    """Fetch a finished clip to `path`. Once its server has answered, reads for `patience` seconds at most.

    Raises RemoteError: DOWNLOAD_EXPIRED when the link no longer works, TRANSIENT when another try may help, INTEGRITY
    for what is no whole MP4, REFUSED_HERE for an address that is refused; OSError when the disk fails.
    """
    client, end = Client(policy, _NoTokens()), time.monotonic() + patience
    unfinished = path.with_name(f".{path.name}.part")
    try:
        answer = client.get(link, {})
        watchdog = threading.Timer(end - time.monotonic(), answer.abort)  # a read of a piece may take hours
        watchdog.daemon = True
        watchdog.start()
        try:
            _check(answer)
            _write(answer, unfinished, end)
        finally:
            watchdog.cancel()
            answer.close()
        check_boxes(unfinished)
        retried(lambda: os.replace(unfinished, path))
    except TransientError as error:
        raise RemoteError(Kind.TRANSIENT, str(error), retry_after=error.wait) from None
    except DownloadError as error:
        raise RemoteError(Kind.REFUSED_HERE, str(error)) from None
    finally:
        client.close()
        clear_away(unfinished)


def _check(answer: Answer) -> None:
    if answer.status == 200:
        return
    if answer.status in GONE:
        raise RemoteError(Kind.DOWNLOAD_EXPIRED, f"The link of the finished clip no longer works (status "
                          f"{answer.status}).")
    raise RemoteError(Kind.TRANSIENT, f"{answer.url.host} does not hand out the finished clip (status "
                      f"{answer.status}).")


def _write(answer: Answer, path: Path, end: float) -> None:
    size, done = answer.response.length, 0
    if size is not None and size > MAX_CLIP:
        raise _too_long(answer)
    buffer = memoryview(bytearray(PIECE))
    with path.open("wb") as file:
        while True:
            count = answer.read_into(buffer)
            file.write(buffer[:count])
            done += count
            if done > MAX_CLIP:
                raise _too_long(answer)
            if time.monotonic() > end:
                raise RemoteError(Kind.TRANSIENT, f"{answer.url.host} sends the finished clip too slowly.")
            if count < len(buffer):
                break
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done != size:
        raise RemoteError(Kind.INTEGRITY, f"{answer.url.host} sent {done} of the {size} bytes of the clip.")


def _too_long(answer: Answer) -> RemoteError:
    return RemoteError(Kind.INTEGRITY, f"{answer.url.host} sends more than {MAX_CLIP // 2**20} MB, which no clip is.")


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
