"""SHA-256 of a file while it grows.

Blocks may arrive in any order, so the hash follows the gapless beginning of the file, reading what was written a moment
ago back from the system's page cache. hashlib lets other threads run meanwhile.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from .waiting import Stop

BLOCK = 2**20
"""Bytes hashed at a time; smaller ones have the threads wait for each other more often."""
BLOCKS_A_TURN = 4
"""Blocks between two calls of stop: some milliseconds."""


class PrefixHash:
    """The hash of the first bytes of a file. To be closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._hash = hashlib.sha256()
        self._buffer = memoryview(bytearray(BLOCK))
        self.done = 0

    def follow(self, prefix: int) -> bool:
        """Hash a few blocks towards byte `prefix`; whether it is reached. Raises OSError when the file is shorter."""
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
        """Hash the rest; 64 hex digits."""
        while not self.follow(size):
            stop()
        return self._hash.hexdigest()

    def close(self) -> None:
        self._file.close()


def hash_file(path: Path, stop: Stop) -> str:
    """SHA-256 of a whole file, as 64 hex digits."""
    hashed = PrefixHash(path)
    try:
        return hashed.finish(path.stat().st_size, stop)
    finally:
        hashed.close()
