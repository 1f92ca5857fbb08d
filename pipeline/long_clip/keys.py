"""Keys of segments: a hash of all that determines one, and of the key of the segment before it.

A segment on the disk is taken when its key is the one that this run would give it, and never otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1
"""Of the files of a segment; a change of it gives every segment a new key."""
SAMPLES, SAMPLE_BYTES = 64, 4096
"""Places of a file that are read for its fingerprint, and bytes at each."""


def key_of(*parts: Any) -> str:
    """Return the key of values that JSON can hold, as 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:16]


def chain_of_keys(common: Mapping[str, Any], segments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the key of each segment.

    common: what all segments share. segments: what each has of its own. A change of one gives all that follow new keys.
    """
    keys = [key_of(common)]
    for own in segments:
        keys.append(key_of(keys[-1], own))
    return keys[1:]


def fingerprint_of_file(path: Path) -> str:
    """Return a hash of a file's size and of 64 places in it: a file of gigabytes is told from another in no time."""
    size = path.stat().st_size
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for place in range(SAMPLES):
            file.seek(place * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
            found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()


def fingerprint_of_module(module: torch.nn.Module) -> str:
    """Return a hash of a model's names, shapes and dtypes, and of the values of its vectors: biases and norms.

    These are stored unquantised and are few, so that weights on a device or in a mapped file are not read.
    """
    found = hashlib.sha256()
    for name, value in module.named_parameters():
        found.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        if value.squeeze().ndim <= 1:
            found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def fingerprint_of_tensor(tensor: torch.Tensor) -> str:
    """Return a hash of a tensor's shape and values, as float32."""
    values = tensor.detach().float().cpu().contiguous()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()
