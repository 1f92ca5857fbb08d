"""Files that programs send: pictures and LoRAs, kept under their SHA-256 once they are whole and checked.

A key knows its own uploads alone, but the same bytes are kept once. Pictures go into ComfyUI's input folder, where Load
Image finds them; LoRAs into a folder beside the models, where the LoRA node finds them as `upload:` and their hash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.header import OPENING_BYTES, check_opening
from ..download.picture import MAX_PICTURE_BYTES, kind_of_picture
from ..files.atomic import remove_if_present, retry_while_held
from ..files.names import size_text
from ..remote.database import create, opened, writing
from .errors import ApiError, field_error
from .upload_names import LORA_SUFFIX, UPLOAD_PREFIX

PICTURE, LORA = "picture", "lora"
MOST = {PICTURE: MAX_PICTURE_BYTES, LORA: 4 * 2**30}
"""Bytes of an upload, by kind."""
ROOM = 2 * 2**30
"""Bytes that uploads leave free on the disk."""
PICTURES = "wan22/api"
"""Folder in ComfyUI's input folder."""
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp"}
_decoding = threading.Semaphore(2)
"""Pictures that are decoded at the same time: one of 64 megapixels takes half a gigabyte."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS api_uploads (
    key TEXT NOT NULL, sha256 TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, file TEXT NOT NULL,
    is_tall INTEGER NOT NULL, used REAL NOT NULL, PRIMARY KEY (key, sha256)
);
"""
_COLUMNS = "sha256, kind, size, file, is_tall"


@dataclass(frozen=True)
class Upload:
    """A file of a key."""

    sha256: str
    kind: str
    """PICTURE or LORA."""
    size: int
    """Bytes."""
    file: str
    """Its name in its folder."""
    is_tall: bool = False
    """True for a picture that is taller than wide."""

    @property
    def name(self) -> str:
        """What requests name it by."""
        return UPLOAD_PREFIX + self.sha256


class Uploads:
    """The table of uploads, and their files."""

    def __init__(self, folder: Path, inputs: Path, loras: Path, clock: Callable[[], float] = time.time) -> None:
        """folder: of the database. inputs: ComfyUI's input folder. loras: of uploaded LoRAs. clock: seconds since
        1970."""
        self.folder, self.pictures, self.loras, self.clock = folder, inputs / PICTURES, loras, clock
        create(folder, _SCHEMA)

    def find(self, key: str, sha256: str, kind: str = "") -> Upload | None:
        """Return a key's upload, of a kind when one is given; None when it is not here (any more)."""
        with opened(self.folder) as base:
            row = base.execute(f"SELECT {_COLUMNS} FROM api_uploads WHERE key = ? AND sha256 = ?",
                               (key, sha256.lower())).fetchone()
        found = None if row is None else Upload(row[0], row[1], row[2], row[3], bool(row[4]))
        is_here = found is not None and kind in ("", found.kind) and self.path(found).is_file()
        return found if is_here else None

    def path(self, upload: Upload) -> Path:
        """Return where an upload's file is."""
        return (self.pictures if upload.kind == PICTURE else self.loras) / upload.file

    def touch(self, key: str, sha256: str) -> None:
        """Record that an upload is used, so that it is kept."""
        with writing(self.folder) as base:
            base.execute("UPDATE api_uploads SET used = ? WHERE key = ? AND sha256 = ?",
                         (self.clock(), key, sha256.lower()))

    def add_picture(self, key: str, data: bytes) -> Upload:
        """Keep a picture that is in memory. Raises as Incoming does."""
        incoming = Incoming(self, key)
        try:
            incoming.write(data)
            return incoming.keep()
        finally:
            incoming.close()

    def record(self, key: str, upload: Upload) -> None:
        """Add a file that is in its place."""
        with writing(self.folder) as base:
            base.execute("INSERT OR REPLACE INTO api_uploads VALUES (?, ?, ?, ?, ?, ?, ?)",
                         (key, upload.sha256, upload.kind, upload.size, upload.file, upload.is_tall, self.clock()))

    def sweep(self, before: float, needed: set[str]) -> None:
        """Remove the uploads last used before a time, but those whose hashes are needed still."""
        with writing(self.folder) as base:
            rows = [row for row in base.execute(f"SELECT {_COLUMNS}, key FROM api_uploads WHERE used < ?", (before,))
                    if row[0] not in needed]
            base.executemany("DELETE FROM api_uploads WHERE key = ? AND sha256 = ?", [(row[5], row[0]) for row in rows])
            kept = {row[0] for row in base.execute("SELECT sha256 FROM api_uploads")}
        for row in rows:
            if row[0] not in kept:
                remove_if_present(self.path(Upload(*row[:4])))
        for folder in (self.pictures, self.loras):
            for part in folder.glob(".*.part"):  # of an upload that a crash broke off
                if part.stat().st_mtime < before:
                    remove_if_present(part)


class Incoming:
    """One file as it comes in, piece by piece: refused as soon as it cannot be a picture or a LoRA, or is too large."""

    def __init__(self, uploads: Uploads, key: str) -> None:
        self.uploads, self.key = uploads, key
        self._opening, self._size, self._hash = b"", 0, hashlib.sha256()
        self._kind, self._part = "", None

    def write(self, piece: bytes) -> None:
        """Take the next piece. Raises ApiError for what cannot be an upload; OSError."""
        self._size += len(piece)
        self._hash.update(piece)
        if self._part is None:
            self._opening += piece
            if len(self._opening) < OPENING_BYTES:
                return
            piece = self._opening
            self._begin()
        if self._size > MOST[self._kind]:
            raise ApiError("too_large", f"The {self._kind} is larger than {size_text(MOST[self._kind])}, which is the "
                                        "most.")
        if shutil.disk_usage(self._part.parent).free < ROOM:
            raise ApiError("unavailable", "The server's disk is full.", headers={"Retry-After": "3600"})
        self._file.write(piece)

    def keep(self) -> Upload:
        """Check the whole file and keep it; return it. Raises ApiError (invalid_request) for one that is no good."""
        if self._part is None:
            self._begin()
            self._file.write(self._opening)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        sha256, is_tall = self._hash.hexdigest(), False
        if self._kind == PICTURE:
            from ..video.picture import check_picture

            with _decoding:
                width, height = _checked(lambda: check_picture(self._part.read_bytes()))
            is_tall, suffix = height > width, SUFFIXES[kind_of_picture(self._opening)]
        else:
            _checked(lambda: _check_lora(self._part))
            suffix = LORA_SUFFIX
        upload = Upload(sha256, self._kind, self._size, sha256 + suffix, is_tall)
        path = self.uploads.path(upload)
        if not path.is_file():  # else the same bytes are here
            retry_while_held(lambda: os.replace(self._part, path))
        self.uploads.record(self.key, upload)
        return upload

    def close(self) -> None:
        """Remove what was not kept. Safe to call twice."""
        if self._part is not None:
            self._file.close()
            remove_if_present(self._part)

    def _begin(self) -> None:
        """Decide by the first bytes what the file is, and open a file for it."""
        if kind_of_picture(self._opening):
            self._kind = PICTURE
        else:
            _checked(lambda: check_opening("The file", self._opening[:OPENING_BYTES]))
            self._kind = LORA
        folder = self.uploads.pictures if self._kind == PICTURE else self.uploads.loras
        folder.mkdir(parents=True, exist_ok=True)
        self._part = folder / f".{uuid.uuid4().hex}.part"
        self._file = self._part.open("wb")


def _check_lora(path: Path) -> None:
    """Raise CheckpointError unless a file is a LoRA for Wan, by its header."""
    from ..checkpoint.safetensors_file import read_remote_header
    from ..lora.probe import probe_lora

    with path.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        probe_lora(read_remote_header("The file", read, path.stat().st_size))  # by a name that a stranger may see


def _checked(check: Callable[[], object]) -> object:
    """Return what a check returns; raise its ValueError as an ApiError."""
    try:
        return check()
    except ValueError as error:
        raise field_error({"file": str(error)}) from None
