"""The name that an uploaded file has in requests and graphs: `upload:` and its SHA-256. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from ..files.names import read_sha256

UPLOAD_PREFIX = "upload:"
LORA_SUFFIX = ".safetensors"


def uploaded_lora(folder: Path, name: str) -> Path | None:
    """Return the file of an uploaded LoRA by the name that requests have for it; None for any other name."""
    sha256 = read_sha256(name.removeprefix(UPLOAD_PREFIX)) if name.startswith(UPLOAD_PREFIX) else None
    path = None if sha256 is None else folder / f"{sha256}{LORA_SUFFIX}"
    return path if path is not None and path.is_file() else None
