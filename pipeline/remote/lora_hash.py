"""The SHA-256 of a LoRA's file: what it is known by on another server, and what makes its clip another one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..download.partial import hash_file
from ..http.threads import never


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; read once for each time that it was written. Raises OSError."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return hash_file(path, never)
