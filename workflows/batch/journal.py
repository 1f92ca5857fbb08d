"""The journal of a batch: what happened to each item, a line of JSON an event, on the disk before anything follows.

    {"event": "queued", "id": "6ab1...", "server": "http://127.0.0.1:8188", "job": "0b94...", "time": 1790000000.0}
    {"event": "done", "id": "6ab1...", "file": "cat-6ab1.mp4", "bytes": 81234, "sha256": "...", "seconds": 12.1, ...}

Other events: "rejected", a clip that Check Clip did not pass, after which a new seed is tried; "failed", an error;
"set aside", the last of them. Lines are only ever added, so a journal tells of every run on its folder.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from run_headless import ClipError

BEGIN = b'{"event": "'
Event = dict[str, Any]


class Journal:
    """An open journal, which is this program's alone as long as it is open."""

    def __init__(self, path: Path) -> None:
        """Open or begin it. Raises ClipError when another program has it open or it holds other things."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+b")
        try:
            hold(self.file.fileno())
        except OSError:
            raise ClipError(f"{path} is in use by another run of this program. Wait for it, or name another --out."
                            ) from None
        self.last: dict[str, Event] = {}
        """Item -> its newest event."""
        self.done: dict[str, Event] = {}
        self.rejected: dict[str, list[Event]] = {}
        self.read()

    def read(self) -> None:
        """Read the events of earlier runs. What a kill left of a line that was being written is cut off."""
        self.file.seek(0)
        *lines, rest = self.file.read().split(b"\n")
        try:
            for line in lines:
                self.note(json.loads(line))
            if rest[:len(BEGIN)] != BEGIN[:len(rest)]:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise ClipError(f"{self.path} is not the journal of a batch. Name another place for it.") from None
        if rest:
            self.file.truncate(sum(len(line) + 1 for line in lines))

    def note(self, event: Event) -> None:
        self.last[event["id"]] = event
        if event["event"] == "done":
            self.done[event["id"]] = event
        elif event["event"] == "rejected":
            self.rejected.setdefault(event["id"], []).append(event)

    def add(self, event: str, item: str, **details: Any) -> None:
        """Write an event, and wait until it is on the disk. Raises OSError; the journal is then as it was before."""
        line = json.dumps({"event": event, "id": item, **details, "time": round(time.time(), 3)}).encode() + b"\n"
        size = os.fstat(self.file.fileno()).st_size
        try:
            if os.write(self.file.fileno(), line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self.file.fileno())
        except OSError as error:
            os.ftruncate(self.file.fileno(), size)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self.note(json.loads(line))

    def close(self) -> None:
        self.file.close()


def hold(file: int) -> None:
    """Lock a file for this process until it is closed or the process ends. Raises OSError when another has it."""
    if os.name == "nt":
        import msvcrt

        os.lseek(file, 1 << 40, os.SEEK_SET)  # a byte far behind the end: the lock would keep others from reading
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
