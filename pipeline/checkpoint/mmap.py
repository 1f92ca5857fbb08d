"""Map weight files read-only into memory, and read them ahead into the system's page cache.

torch and safetensors map files privately (copy on write), which the system counts as memory that may be needed: Linux
refuses a file larger than RAM and swap (man 5 proc, overcommit_memory), and Windows reserves the whole file in its
paging file (FILE_MAP_COPY counts as commit: learn.microsoft.com, MapViewOfFile), 29 to 57 GB for a pair of experts. A
read-only mapping reserves nothing. Writing to such a tensor in place would end the process; nothing in the pack does.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .header import FileHeader
from .ram import available_ram

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32,
    "U32": torch.uint32, "F32": torch.float32, "C64": torch.complex64, "F64": torch.float64, "I64": torch.int64,
    "U64": torch.uint64,
}
"""safetensors' name of a dtype -> torch's (safetensors/bindings/python, torch.py)."""
if hasattr(torch, "float8_e8m0fnu"):  # the scales of MXFP8; since PyTorch 2.7
    DTYPES["F8_E8M0"] = torch.float8_e8m0fnu
CHUNK = 1 << 24
"""Bytes read at once."""


def unmarked(tensor: torch.Tensor, offset: int) -> None:
    """Leave a mapped tensor as it is."""


@dataclass(frozen=True)
class MappedFile:
    """The bytes of a file, mapped read-only for as long as a tensor of them lives."""

    data: mmap.mmap | memoryview
    mark: Callable[[torch.Tensor, int], None] = unmarked
    """Called with each tensor of the file, which has a storage of its own, and where its first byte is in the file:
    for a host that reads weights from the file itself."""

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> torch.Tensor:
        """Return the tensor whose first byte is that many bytes from the file's start. Never write to it."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")  # read-only is meant
            found = torch.frombuffer(self.data, dtype=dtype, count=count, offset=offset).view(shape)
        self.mark(found, offset)
        return found


MapFile = Callable[[Path], MappedFile]
"""Maps a whole file. Raises OSError or RuntimeError when the system refuses, ValueError when it is empty."""


def map_read_only(path: Path) -> MappedFile:
    """Map a whole file, as any host can. Raises as MapFile says."""
    with path.open("rb") as file:
        return MappedFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def mapped_tensors(header: FileHeader, map_file: MapFile = map_read_only) -> dict[str, torch.Tensor]:
    """Map the tensors of a .safetensors file, of dtypes in DTYPES. Raises as MapFile says."""
    mapped = map_file(header.path)
    return {name: mapped.tensor(DTYPES[dtype], header.shapes[name], header.offsets[name])
            for name, dtype in header.dtypes.items()}


def read_ahead(files: Sequence[Path]) -> threading.Thread | None:
    """Start a thread that reads files into the page cache, so that their first use does not wait for the disk.

    Return None, and read nothing, when they do not fit the free RAM: they would push out pages in use. Read errors are
    ignored here; they show when the files are used.
    """
    try:
        size = sum(file.stat().st_size for file in files)
    except OSError:
        return None
    if size > available_ram():
        return None
    thread = threading.Thread(target=_read, args=(tuple(files),), name="wan22-read-ahead", daemon=True)
    thread.start()
    return thread


def _read(files: Sequence[Path]) -> None:
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
                    continue
                buffer = bytearray(CHUNK)
                while file.readinto(buffer):
                    pass
        except OSError:
            return
