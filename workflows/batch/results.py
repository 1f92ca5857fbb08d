"""Where a batch's results go: a folder of this machine, or any path that fsspec knows (s3://, gs://, sftp:// ...)."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from run_headless import ClipError

COLUMNS = ("id", "state", "file", "seed", "score", "pass", "attempts", "seconds", "server", "sha256", "bytes", "error")


class Results(Protocol):
    """A place for files, which are there whole or not at all."""

    def save(self, name: str, data: bytes) -> None:
        """Write a file, in place of one of that name. Raises OSError."""

    def sizes(self) -> dict[str, int]:
        """Return the files that are there, with their bytes. Raises OSError."""


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def save(self, name: str, data: bytes) -> None:
        path, part = self.path / name, self.path / f".{name}.part"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from None

    def sizes(self) -> dict[str, int]:
        return {entry.name: entry.stat().st_size for entry in os.scandir(self.path) if entry.is_file()}


class FsspecFolder:
    """A path of fsspec. Its transactions write under another name first, or as a whole where the store does."""

    def __init__(self, url: str) -> None:
        """Open the place. Raises ClipError when fsspec, or what it needs for this kind of path, is not installed."""
        try:
            import fsspec
        except ImportError:
            raise ClipError(f"--out {url} needs the package fsspec: pip install fsspec") from None
        try:
            self.system, self.root = fsspec.core.url_to_fs(url.rstrip("/"))
            self.system.makedirs(self.root, exist_ok=True)
        except Exception as error:  # each kind of store has errors of its own
            raise ClipError(f"--out {url}: {error}") from None
        self.url = url.rstrip("/")
        self.writing = Lock()  # a transaction is of the whole system

    def save(self, name: str, data: bytes) -> None:
        try:
            with self.writing, self.system.transaction, self.system.open(f"{self.root}/{name}", "wb") as file:
                file.write(data)
        except Exception as error:
            raise OSError(0, str(error), f"{self.url}/{name}") from None

    def sizes(self) -> dict[str, int]:
        try:
            found = self.system.ls(self.root, detail=True, refresh=True)
        except FileNotFoundError:  # a store without folders, which is empty
            found = []
        except Exception as error:
            raise OSError(0, str(error), self.url) from None
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in found}


def results_at(out: str) -> Results:
    """Return the place that --out names."""
    return FsspecFolder(out) if "://" in out else Folder(Path(out))


def table(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a CSV of results; what a spreadsheet would take for a formula begins with an apostrophe."""
    rows = list(rows)
    names = [*COLUMNS, *dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"'{value}" if str(value)[:1] in "=+-@" and isinstance(value, str) and value else value
                         for name, value in row.items()})
    return text.getvalue().encode("utf-8-sig")
