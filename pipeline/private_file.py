"""Whether a file is its owner's alone, where a file system can tell."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

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
