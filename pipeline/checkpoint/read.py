"""All weights of a file or folder, whatever its layout, packed ones as they are."""

from __future__ import annotations

from pathlib import Path

from .diffusers_folder import weight_files
from .quantised import Weight, find_quantised
from .safetensors_file import read_header, read_tensors


def read_weights(path: Path) -> tuple[dict[str, Weight], dict[str, str]]:
    """Weights under the file's own names, memory-mapped, and its metadata.

    Raises CheckpointError for a file that is missing, cut short or something else.
    """
    weights: dict[str, Weight] = {}
    metadata: dict[str, str] = {}
    for file in weight_files(path) if path.is_dir() else [path]:
        header = read_header(file)
        weights |= find_quantised(read_tensors(file), header.metadata)
        metadata |= header.metadata
    return weights, metadata
