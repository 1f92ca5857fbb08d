"""Whether a file is its owner's alone, where a file system can tell.

A JSON object on the disk, written so that nobody ever finds half of it.

A file that appears under its name only when it is whole, and under a name that no other file has.

Files that another program holds for a moment.

On Windows nobody can rename, replace or remove a file that is open elsewhere, and virus scanners and search indexers
open each new one for some milliseconds. Other systems never say so, and nothing here waits there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HELD = (5, 32, 33)
"""ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION (Windows, winerror.h)."""
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the tries."""


def is_held(error: OSError) -> bool:
    """Whether the error may come of another program that has the file open."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in HELD


def retried(operation: Callable[[], T], waits: Sequence[float] = WAITS,
            wait: Callable[[float], None] = time.sleep) -> T:
    """What the operation returns, tried again after each of the waits while a file is held. Raises what it raises."""
    for seconds in waits:
        try:
            return operation()
        except PermissionError as error:
            if not is_held(error):
                raise
        wait(seconds)
    return operation()


def clear_away(path: Path) -> None:
    """Remove a file that nobody needs, if it is there; one that cannot be removed stays."""
    with suppress(OSError):
        retried(lambda: path.unlink(missing_ok=True))

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL)


class NewFile:
    """Where to write (`unfinished`), and later where it is (`path`)."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.unfinished = folder / f".{uuid.uuid4().hex}.part{suffix}"
        self.path: Path | None = None


@contextmanager
def new_file(new_path: Callable[[], Path]) -> Iterator[NewFile]:
    """A file to be written inside the block; after it, it is on the disk under a name of `new_path`.

    `new_path` names a file that is not there yet, and is asked again when another writer has been quicker. When the
    block raises, nothing is left behind. Raises OSError when the folder cannot be written to or, before the block, when
    its disk cannot hold the name; FileExistsError when `new_path` insists on a name that is taken.
    """
    first = new_path()
    first.parent.mkdir(parents=True, exist_ok=True)
    _try_name(first)
    file = NewFile(first.parent, first.suffix)
    try:
        yield file
        _flush(file.unfinished)
        path = first
        while not _given(file.unfinished, path):
            taken, path = path, new_path()
            if path == taken:
                raise FileExistsError(errno.EEXIST, "There is a file of that name", str(path))
        file.path = path
        if os.name == "posix":
            _flush(path.parent)
    finally:
        clear_away(file.unfinished)


def advice_on(error: OSError) -> str:
    """What to do about an error of `new_file`, as the beginning of a sentence."""
    if error.errno in NO_SPACE:
        return "Free some space"
    return "Give a shorter or plainer name" if error.errno in NO_NAME else "Give ComfyUI the right to write there"


def _try_name(path: Path) -> None:
    """Have the system refuse now what it would refuse after the work: characters, the length of the whole path.

    A neighbour's name is tried, for under its own nobody shall see the file before it is whole.
    """
    stem, last = path.stem[:-1], path.stem[-1:]
    trial = path.with_name(f"{stem}{'-' if last == '~' else '~'}{path.suffix}")
    with suppress(FileExistsError):
        trial.touch(exist_ok=False)
        clear_away(trial)


def _flush(path: Path) -> None:
    """Have the disk keep what was written. A folder's entries are flushed only where the system can."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        if path.is_dir():
            with suppress(OSError):
                os.fsync(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _given(unfinished: Path, path: Path) -> bool:
    """Whether the file got that name; False when another has it. At no time two writers can have the same."""
    if os.name == "nt":
        try:
            retried(lambda: unfinished.rename(path))  # on Windows never over another
        except FileExistsError:
            return False
        return True
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, as of USB sticks and network drives
        if path.exists():
            return False
        unfinished.rename(path)
    return True


def read_object(path: Path) -> dict[str, Any]:
    """What the file holds, {} when there is none. Raises ValueError when that is no JSON object; OSError."""
    try:
        found = json.loads(path.read_bytes())  # as bytes: editors on Windows begin a file with a byte order mark
    except FileNotFoundError:
        return {}
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def write_object(path: Path, whole: dict[str, Any]) -> None:
    """Put an object in the place of the file, readable by its owner alone. Raises OSError, with the old file kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        retried(lambda: os.replace(name, path))
    except BaseException:
        clear_away(Path(name))
        raise

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def is_open_to_others(path: Path, mode: int) -> bool:
    """Whether a file with this st_mode can be read or changed by others on this machine.

    False where a mode means nothing, Windows and file systems that show the same for every file (exFAT, /mnt/c of
    WSL): a file that was made just now for its owner alone gives them away.
    """
    if os.name != "posix" or not mode & OTHERS:
        return False
    try:
        with tempfile.TemporaryFile(dir=path.parent) as fresh:
            return not os.fstat(fresh.fileno()).st_mode & OTHERS
    except OSError:
        return True
