"""Folders of weights in diffusers' layout: one component, or a whole pipeline.

A component is a config.json beside one .safetensors file, or beside shards and the index that names them
(github.com/huggingface/huggingface_hub, src/huggingface_hub/serialization/_base.py). A pipeline is a model_index.json
beside one folder a component (github.com/huggingface/diffusers, src/diffusers/pipelines/pipeline_utils.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from .errors import CheckpointError

SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
SHARD = "-of-"
"""In the name of every shard, NAME-00001-of-00003.safetensors."""
USUAL_NAMES = ("diffusion_pytorch_model", "model")
"""Names of weight files in diffusers and transformers; a variant such as fp16 follows the name."""


def is_pipeline(folder: Path) -> bool:
    """True when the folder holds a whole pipeline."""
    return (folder / "model_index.json").is_file()


def is_component(folder: Path) -> bool:
    """True when the folder holds the weights of one model: beside a config.json, or shards and their index alone."""
    if (folder / "config.json").is_file():
        return any(folder.glob(f"[!.]*{SUFFIX}*"))
    files = list(folder.glob(f"[!.]*{SUFFIX}"))
    return bool(files) and any(folder.glob(f"[!.]*{INDEX_SUFFIX}")) and all(SHARD in file.name for file in files)


def _preferred(folder: Path, suffix: str) -> Path | None:
    """Return the one file with this suffix, of several the one without a variant; None when that is not clear.

    Hidden files are skipped: macOS writes ._NAME beside each NAME on foreign disks.
    """
    files = sorted(folder.glob(f"[!.]*{suffix}"))
    plain = [file for file in files if file.name.removesuffix(suffix) in USUAL_NAMES]
    return (plain or files)[0] if len(plain or files) == 1 else None


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a component, sorted by name.

    Raises CheckpointError when there are none, when several sets have no index, or when a shard that the index names
    is missing.
    """
    index = _preferred(folder, INDEX_SUFFIX)
    if index is None:
        single = _preferred(folder, SUFFIX)
        if single is None:
            what = "several .safetensors files and no index" if any(folder.glob(f"[!.]*{SUFFIX}")) else "no weights"
            raise CheckpointError(f"The folder {folder.name} holds {what}. Choose a folder with a config.json and one "
                                  "set of weights, or a file.")
        return [single]
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index.name} in {folder.name} cannot be read ({error}). Fetch it again.") from error
    if not names:
        raise CheckpointError(f"{index.name} in {folder.name} names no shards. Fetch it again.")
    files = [folder / Path(str(name)).name for name in names]
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise CheckpointError(f"The folder {folder.name} lacks {gone[0]}{more} of {len(files)} shards. Fetch the rest.")
    return files
