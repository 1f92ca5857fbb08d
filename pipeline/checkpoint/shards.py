"""Files that hold one model together: the parts of a split GGUF file, and the shards of a .safetensors file.

Both are called NAME-00001-of-00003 and so on (github.com/ggml-org/llama.cpp, tools/gguf-split;
github.com/huggingface/huggingface_hub, src/huggingface_hub/serialization/_base.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from .errors import CheckpointError
from .folder import weight_files

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf|\.safetensors|\.sft)", re.IGNORECASE)
MAX_PARTS = 999


def files_of(path: Path) -> list[Path]:
    """Return the files that hold the weights of a file or a folder, sorted by name.

    Raises CheckpointError as `weight_files` does, for a part that is not the first, and when parts are missing.
    """
    return weight_files(path) if path.is_dir() else _parts(path)


def parts_beside(file: Path) -> list[Path]:
    """Return those parts of a split file that exist, the given one included; the file alone when it is not split."""
    return [part for part in _all_parts(file) if part.is_file()] or [file]


def _all_parts(file: Path) -> list[Path]:
    """Return the paths of all parts, by the name of one; the file alone when it is not called like a part."""
    match = PART.fullmatch(file.name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]) <= MAX_PARTS:
        return [file]
    stem, _, count, suffix = match.groups()
    return [file.with_name(f"{stem}-{number:05}-of-{count}{suffix}") for number in range(1, int(count) + 1)]


def _parts(file: Path) -> list[Path]:
    parts = _all_parts(file)
    if len(parts) == 1 or not file.is_file():
        return [file]
    which = f"{file.name} is part {parts.index(file) + 1} of {len(parts)} of a split file"
    gone = [part.name for part in parts if not part.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise CheckpointError(f"{which}, and {gone[0]}{more} cannot be found beside it. Fetch the rest into the same "
                              "folder.")
    if file != parts[0]:
        raise CheckpointError(f"{which}. Choose its first part, {parts[0].name}: the others are loaded with it.")
    return parts
