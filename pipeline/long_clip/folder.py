"""The folder of a long clip: each file is named by its segment's place and key, and by a hash of what is in it.

So a file is found by its key, whole or not at all, and a damaged one is told by its own name. Files of other keys, such
as those of an earlier prompt, are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.atomic import advice_on, replace_file
from ..files.names import size_text
from ..request import RequestError

LATENTS, END, PIECE = ".latent", ".end.safetensors", ".mp4"
"""Suffixes of a segment's files: its latents; what the next segment goes on from; its frames."""
SO_FAR = "so_far.mp4"
"""Name of the clip while it is not finished."""
CUTS = "tiles-"
"""Begins the name of the file with the cuts of a clip's frames; the key of its first segment follows."""
CHUNK = 2**20


@dataclass(frozen=True)
class SegmentFolder:
    """The folder of one long clip."""

    path: Path

    def find(self, place: int, key: str, suffix: str) -> tuple[Path | None, str]:
        """Return the file of a segment, and a sentence when there is one that is damaged.

        place: from 1. key: of the segment, or of its piece. Its content is read and hashed.
        """
        stem, fault = _stem(place, key), ""
        for file in sorted(self.path.glob(f"{stem}_*{suffix}")):
            try:
                if file.name == _name(stem, file, suffix):
                    return file, ""
                fault = f"{file.name} is damaged: its content is not what its name says."
            except OSError as error:
                fault = f"{file.name} cannot be read: {error.strerror or error}."
        return None, fault

    def write(self, place: int, key: str, suffix: str, write: Callable[[Path], None]) -> Path:
        """Have `write` write a segment's file at a path that it is given; return the file under its name.

        A damaged file of that name is replaced. Raises RequestError when the disk refuses; nothing is left then.
        """
        stem = _stem(place, key)
        try:
            with replace_file(self.path, suffix) as file:
                write(file.unfinished)
                file.path = self.path / _name(stem, file.unfinished, suffix)
            return file.path
        except OSError as error:
            raise disk_error(error, self.path, f"Segment {place}") from error

    def others(self, keys: set[str]) -> int:
        """Return how many files of segments there are with none of these keys: of other settings."""
        names = (file.name.split("_") for file in self.path.glob("*_*_*"))
        return sum(parts[1] not in keys for parts in names)

    def size(self) -> int:
        """Return the bytes of all its files."""
        found = 0
        for file in self.path.glob("*"):
            with suppress(FileNotFoundError):  # of another run that has just ended
                found += file.stat().st_size if file.is_file() else 0
        return found


def disk_error(error: OSError, folder: Path, what: str) -> RequestError:
    """Return the error of a disk that refuses a part of a long clip, whose other parts are kept."""
    return RequestError(f"{what} could not be written to {folder}: {error.strerror or error}. {advice_on(error)}, and "
                        "run the same again: what is finished is kept, and the run goes on from there.")


def check_space(folder: Path, needed: int, free: int) -> None:
    """Raise RequestError when a disk has fewer bytes free than the segments need."""
    if free < needed:
        raise RequestError(f"The segments need about {size_text(needed)} in {folder}, and {size_text(free)} are free. "
                           "Free some space, or choose a folder on another disk.")


def _stem(place: int, key: str) -> str:
    return f"{place:03}_{key}"


def _name(stem: str, file: Path, suffix: str) -> str:
    """Return the name that a file's content gives it."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return f"{stem}_{found.hexdigest()[:16]}{suffix}"
