"""Keep a file that is not whole yet, and beside it a note of which bytes are there and of which version; hash it.

The note is written after the bytes it speaks of are on the disk, so that whatever ends the process (or the machine),
nothing that is noted is missing. It names no link. Blocks may arrive in any order, so the hash follows the gapless
beginning of the file, reading what was written a moment ago back from the system's page cache. hashlib lets other
threads run meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from ..files.atomic import is_held, remove_if_present, retry_while_held
from ..files.names import size_text
from ..http.errors import DownloadError
from ..http.threads import Stop
from .ranges import Ranges

MARGIN = 2**26
"""Bytes of the disk that a download leaves free."""
BLOCK = 2**20
"""Bytes hashed at a time; smaller ones have the threads wait for each other more often."""
BLOCKS_A_TURN = 4
"""Blocks between two calls of stop: some milliseconds."""


class NoRoomError(DownloadError):
    """The disk has no room for the rest of a download. What was kept and what to do is left to say."""


class PrefixHash:
    """The hash of the first bytes of a file. To be closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._hash = hashlib.sha256()
        self._buffer = memoryview(bytearray(BLOCK))
        self.done = 0

    def follow(self, prefix: int) -> bool:
        """Hash a few blocks towards byte `prefix`; return whether it is reached. Raises OSError for a shorter file."""
        for _ in range(BLOCKS_A_TURN):
            if self.done >= prefix:
                break
            count = self._file.readinto(self._buffer[:min(BLOCK, prefix - self.done)])
            if not count:
                raise OSError("a file shrank while it was read")
            self._hash.update(self._buffer[:count])
            self.done += count
        return self.done >= prefix

    def finish(self, size: int, stop: Stop) -> str:
        """Hash the rest; return 64 hex digits."""
        while not self.follow(size):
            stop()
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()


def hash_file(path: Path, stop: Stop) -> str:
    """Return the SHA-256 of a whole file, as 64 hex digits."""
    hashed = PrefixHash(path)
    try:
        return hashed.finish(path.stat().st_size, stop)
    finally:
        hashed.close()


def disk_error(error: OSError, folder: Path, kept: str = "") -> DownloadError:
    """Return the sentence for an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DownloadError(f"The disk of {folder} took no more: {os.strerror(error.errno)}. {kept}Make room, and run "
                             "again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DownloadError(f"{folder} may not be written to: {os.strerror(error.errno)}. {kept}Give ComfyUI the "
                             "right to write there, and run again.")
    return DownloadError(f"{folder} could not be written to: {error.strerror or error}. {kept}")


def sync(path: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


class Partial:
    """The bytes of one download, in a folder, under a name that stands for its link. One process has it at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.path = folder / f"{name}.part"
        self._note = folder / f"{name}.json"
        self._lock, self._noting = threading.Lock(), threading.Lock()
        self.validator: str | None = None
        self.size: int | None = None
        self.ranges = Ranges()
        self.noted = 0
        """Bytes that the next run finds."""
        self._load()

    @property
    def resumable(self) -> bool:
        """Whether the next run could tell that what is here and what it fetches are of one version."""
        return self.validator is not None

    def _load(self) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(self._note.read_bytes())
            ranges = Ranges((int(start), int(end)) for start, end in note["ranges"])
            there = max((end for _, end in ranges), default=0) <= self.path.stat().st_size
            if there and note["validator"] is not None:
                self.validator, self.size, self.ranges = note["validator"], note["size"], ranges
                self.noted = ranges.total

    def begin(self, validator: str | None, size: int | None, *, parts: bool) -> None:
        """Go on where the last try ended, or start anew when what is there is of another version.

        `parts` tells whether the server sends parts at all. Raises NoRoomError; DownloadError when the folder cannot
        be written to.
        """
        validator = validator if parts else None
        if validator is None or (self.validator, self.size) != (validator, size):
            self.ranges = Ranges()
        self.validator, self.size = validator, size
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.ranges.total:  # a new file, not an emptied one: a thread left behind may hold the old one
                retry_while_held(lambda: self._note.unlink(missing_ok=True))
                self.noted = 0
                self._drop_bytes()
                retry_while_held(self.path.touch)
            self.check_room()
        except OSError as error:
            raise disk_error(error, self.folder) from None

    def check_room(self) -> None:
        """Raise NoRoomError unless the disk has room for the rest, as far as that is known, and the margin. OSError."""
        free = shutil.disk_usage(self.folder).free
        left = 0 if self.size is None else self.size - self.done
        if free < left + MARGIN:
            coming = "the server does not say how much is" if self.size is None else f"{size_text(left)} are"
            raise NoRoomError(f"The disk of {self.folder} has {size_text(free)} free; {coming} to come, and a download "
                              f"leaves {size_text(MARGIN)} free.")

    def write(self, start: int, data: bytes | bytearray) -> None:
        """Put bytes in their place. Raises OSError."""
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(data)
        self.add(start, start + len(data))

    def add(self, start: int, end: int) -> None:
        """Note that these bytes have been written."""
        with self._lock:
            self.ranges.add(start, end)

    @property
    def prefix(self) -> int:
        with self._lock:
            return self.ranges.prefix

    @property
    def done(self) -> int:
        with self._lock:
            return self.ranges.total

    def keep(self) -> None:
        """Make the bytes that are there last, then note them; one thread after the other. Those of no known version are
        of no use to the next run."""
        if not self.resumable:
            return
        with self._noting:
            with self._lock:
                ranges = list(self.ranges)
            sync(self.path)
            note = json.dumps({"validator": self.validator, "size": self.size, "ranges": ranges})
            temporary = self._note.with_suffix(".tmp")
            temporary.write_text(note, "utf-8")
            retry_while_held(lambda: temporary.replace(self._note))
            self.noted = Ranges(ranges).total

    def discard(self) -> None:
        """Throw the bytes and the note away."""
        retry_while_held(lambda: self._note.unlink(missing_ok=True))
        self._drop_bytes()
        self.ranges, self.noted = Ranges(), 0

    def _drop_bytes(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError as error:
            if not is_held(error):
                raise
            # On Windows a stream that was left behind keeps the file, but it writes nothing any more.
            retry_while_held(lambda: os.truncate(self.path, 0))

    def taken(self) -> None:
        """Remove the note, for the whole file was moved elsewhere."""
        remove_if_present(self._note)
