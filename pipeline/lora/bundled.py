"""Find a LoRA's file by its name: in ComfyUI's loras folders, or among the LoRAs bundled for the demo model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "models" / "demo" / "loras"


def bundled_lora(name: str) -> Path | None:
    """Return the bundled LoRA of that file name; None when there is none."""
    return next((file for file in FOLDER.glob("*.safetensors") if file.name == name), None)


def named_file(name: str, full_path: Callable[[str, str], str | None]) -> Path | None:
    """Return the LoRA file of that name; None when there is none.

    `full_path` is ComfyUI's get_full_path. A name with Windows' backslashes is found on other systems too. A link is no
    name: get_full_path goes up its `..` and would find the file at the end of https://host/../../mine.safetensors.
    """
    if "://" in name:
        return None
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        with suppress(ValueError):  # a path on another drive of Windows, or with a NUL in it
            path = full_path("loras", written)
            if path is not None:
                return Path(path)
    return bundled_lora(name)
