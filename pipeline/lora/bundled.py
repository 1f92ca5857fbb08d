"""The LoRAs that come with the pack, for the bundled model."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "models" / "demo" / "loras"


def bundled_lora(name: str) -> Path | None:
    """The file of that name, None when there is none."""
    return next((file for file in FOLDER.glob("*.safetensors") if file.name == name), None)
