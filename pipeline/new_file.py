"""A file that appears under its name only when it is whole, and under a name that no other file has."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .held_file import clear_away, retried

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
