"""Check a user's files before minutes of set-up are spent on them, and never overwrite one."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from .terminal import DevError

PICTURE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
UPLOAD_LIMIT = 100_000_000  # of the server


def check_picture(path: Path) -> None:
    """Raise DevError for a file that ComfyUI could not read as a picture, as far as its beginning and size tell."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
        size = path.stat().st_size
    except OSError as error:
        raise DevError(f"The picture {path} cannot be read: {error.strerror}.") from None
    if not start.startswith(PICTURE_STARTS) and start[4:12] != b"ftypavif":
        raise DevError(f"{path} is not a picture that can be read: PNG, JPEG, WebP, AVIF, GIF, BMP and TIFF are.")
    if size > UPLOAD_LIMIT:
        raise DevError(f"{path} has {size / 1e6:.0f} MB; ComfyUI takes pictures of up to {UPLOAD_LIMIT // 10**6} MB.")


def check_output(folder: Path) -> None:
    """Make a folder; raise DevError unless files can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise DevError(f"Nothing can be written to {folder}: {error.strerror}.") from None


def write_new(folder: Path, stem: str, suffix: str, content: bytes) -> Path:
    """Write stem.suffix, or stem-2.suffix and so on: a file that is already there is never touched."""
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    path = next(path for name in names if not (path := folder / (name + suffix)).exists())
    with path.open("xb") as file:
        file.write(content)
    return path
