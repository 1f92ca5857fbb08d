"""Write files so that nobody finds half of one, and handle files that another program or another user can open.

On Windows nobody can rename, replace or remove a file that is open elsewhere, and virus scanners and search indexers
open each new one for some milliseconds: those operations are retried. Other systems never report this, so that nothing
waits there.
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
"""Seconds between retries while another program holds a file."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_NAME = (errno.ENAMETOOLONG, errno.EINVAL)
OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Mode bits of everybody but the owner."""


def is_held(error: OSError) -> bool:
    """True when another program may have the file open, on Windows."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) in HELD


def retry_while_held(operation: Callable[[], T], waits: Sequence[float] = WAITS,
                     wait: Callable[[float], None] = time.sleep) -> T:
    """Return what the operation returns; try again after each of the waits while another program holds the file.

    Raises what the operation raises.
    """
    for seconds in waits:
        try:
            return operation()
        except PermissionError as error:
            if not is_held(error):
                raise
        wait(seconds)
    return operation()


def remove_if_present(path: Path) -> None:
    """Remove a file that is not needed any more; one that cannot be removed stays."""
    with suppress(OSError):
        retry_while_held(lambda: path.unlink(missing_ok=True))


class NewFile:
    """A file being written to `unfinished`; `path` is None until it has its final name."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.unfinished = folder / f".{uuid.uuid4().hex}.part{suffix}"
        self.path: Path | None = None


@contextmanager
def new_file(new_path: Callable[[], Path]) -> Iterator[NewFile]:
    """Write a file inside the block; after the block it is on the disk, whole, under a name that no other file has.

    `new_path` returns a name that is free, and is called again when another writer takes it first. When the block
    raises, nothing is left behind. Raises OSError when the folder cannot be written to or, before the block, when its
    disk cannot hold the name; FileExistsError when `new_path` returns the same taken name again.
    """
    first = new_path()
    check_writable(first)
    file = NewFile(first.parent, first.suffix)
    try:
        yield file
        _flush(file.unfinished)
        path = first
        while not _rename_new(file.unfinished, path):
            taken, path = path, new_path()
            if path == taken:
                raise FileExistsError(errno.EEXIST, "There is a file of that name", str(path))
        file.path = path
        if os.name == "posix":
            _flush(path.parent)
    finally:
        remove_if_present(file.unfinished)


@contextmanager
def replace_file(folder: Path, suffix: str) -> Iterator[NewFile]:
    """Write a file inside the block, which sets its `path`, in that folder; after it the file is on the disk, whole.

    A file of that name is replaced. When the block raises, nothing is left behind. Raises OSError when the folder
    cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = NewFile(folder, suffix)
    try:
        yield file
        _flush(file.unfinished)
        retry_while_held(lambda: os.replace(file.unfinished, file.path))
        if os.name == "posix":
            _flush(folder)
    finally:
        remove_if_present(file.unfinished)


def remove_unfinished(folder: Path, hours: float = 1.0) -> None:
    """Remove files that a process which was killed has left unfinished, when they are older than that."""
    for file in folder.glob(".*.part*"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > 3600 * hours:
                remove_if_present(file)


def advice_on(error: OSError) -> str:
    """Return what to do about an error of `new_file`, as the beginning of a sentence."""
    if error.errno in NO_SPACE:
        return "Free some space"
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "There is a file where a folder has to be: move it away"
    return "Give a shorter or plainer name" if error.errno in NO_NAME else "Give ComfyUI the right to write there"


def check_writable(path: Path) -> None:
    """Make the folder of a file that is to be written, and raise now the OSError that the system would raise after the
    work: no right to write there, bad characters, a path that is too long.

    It tries a name of the same length beside it, because nobody may see the file under its own before it is whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stem, last = path.stem[:-1], path.stem[-1:]
    trial = path.with_name(f"{stem}{'-' if last == '~' else '~'}{path.suffix}")
    with suppress(FileExistsError):
        trial.touch(exist_ok=False)
        remove_if_present(trial)


def _flush(path: Path) -> None:
    """Flush a file, or a folder's entries where the system can, to the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        if path.is_dir():
            with suppress(OSError):
                os.fsync(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_new(unfinished: Path, path: Path) -> bool:
    """Rename the file; return False when another file has that name. Two writers never get the same one."""
    if os.name == "nt":
        try:
            retry_while_held(lambda: unfinished.rename(path))  # on Windows never over another file
        except FileExistsError:
            return False
        return True
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, as on USB sticks and network drives
        if path.exists():
            return False
        unfinished.rename(path)
    return True


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} when there is no file. Raises ValueError for other content; OSError."""
    try:
        found = json.loads(path.read_bytes())  # as bytes: editors on Windows begin a file with a byte order mark
    except FileNotFoundError:
        return {}
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def write_json_object(path: Path, whole: dict[str, Any]) -> None:
    """Replace a file by a JSON object, readable by its owner alone. Raises OSError, and then the old file is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(whole, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        retry_while_held(lambda: os.replace(name, path))
    except BaseException:
        remove_if_present(Path(name))
        raise


def is_open_to_others(path: Path, mode: int) -> bool:
    """True when a file with this st_mode can be read or changed by other users of this machine.

    False where a mode means nothing: on Windows, and on file systems that show the same mode for every file (exFAT,
    /mnt/c of WSL), which a fresh temporary file gives away.
    """
    if os.name != "posix" or not mode & OTHERS:
        return False
    try:
        with tempfile.TemporaryFile(dir=path.parent) as fresh:
            return not os.fstat(fresh.fileno()).st_mode & OTHERS
    except OSError:
        return True
