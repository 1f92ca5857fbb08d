"""The file that a LoRA's name stands for: in the host's loras folders, or one of the bundled pair.

The LoRAs that come with the pack, for the bundled model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "models" / "demo" / "loras"


def bundled_lora(name: str) -> Path | None:
    """The file of that name, None when there is none."""
    return next((file for file in FOLDER.glob("*.safetensors") if file.name == name), None)


def named_file(name: str, full_path: Callable[[str, str], str | None]) -> Path | None:
    """The file, None when there is none of that name.

    `full_path` is ComfyUI's get_full_path. A name that was saved on Windows, with its backslashes, is found elsewhere.
    """
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        with suppress(ValueError):  # a path on another drive of Windows, or with a NUL in it
            path = full_path("loras", written)
            if path is not None:
                return Path(path)
    return bundled_lora(name)
