"""A folder as diffusers saves a model: config.json beside one safetensors file, or shards with an index.

Format: diffusers' `ModelMixin.save_pretrained`; the index is {"weight_map": {tensor: file}}.
"""

from __future__ import annotations

import json
from pathlib import Path

from .errors import CheckpointError

SUFFIX = ".safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The folder's weight files. Raises CheckpointError when there are none, or when a shard is missing."""
    indices = sorted(folder.glob(f"*{SUFFIX}.index.json"), key=lambda p: len(p.name))  # variants have longer names
    if indices:
        try:
            names = sorted(set(json.loads(indices[0].read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{indices[0]} cannot be read ({error}). Fetch it again.") from error
        missing = [n for n in names if not (folder / n).is_file()]
        if missing:
            raise CheckpointError(f"{folder.name} lacks {len(missing)} of its {len(names)} files, such as "
                                  f"{missing[0]}. Fetch them again.")
        return [folder / n for n in names]
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: len(p.name))
    if not files:
        raise CheckpointError(f"{folder.name} holds no {SUFFIX} file. Choose the folder of one diffusers model, such "
                              "as transformer/ or vae/ (.bin files are not read: they can run code).")
    return files[:1]
