"""The weights in some model folders: which there are, and which fit a slot. Headers are read once for each change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError, PickleError
from .folder import is_component, is_pipeline, vocabulary_file
from .probe import probe
from .slots import ADVICE, PARTS, Slot, check_slot, part_for

SUFFIXES = (".safetensors", ".sft", ".gguf")
Stamp = tuple[tuple[tuple[str, int, int], ...], tuple[bool, ...]]
"""Name, size in bytes and time of the last change in nanoseconds, of each file; and what there is beside a folder."""


@dataclass(frozen=True)
class Card:
    """What is kept of a probe, which itself is a few hundred kB: what each slot says against it, and its noise."""

    faults: Mapping[Slot, str]
    noise: str | None


_cards: dict[Path, tuple[Stamp, Card]] = {}


def _stamp(path: Path) -> Stamp:
    folder = path.is_dir()
    files = sorted(file for file in path.iterdir() if file.is_file()) if folder else [path]
    return (tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
            _beside(path) if folder else ())


def _beside(folder: Path) -> tuple[bool, ...]:
    """What a component's card tells by more than the component: a tokenizer, the other parts of its pipeline."""
    pipeline = folder.parent
    return (vocabulary_file(folder) is not None, is_pipeline(pipeline),
            *((pipeline / part).is_dir() for part in PARTS.values()))


def _examine(path: Path) -> Card:
    faults = {}
    try:
        found = probe(path)
    except PickleError as error:  # often the official files, which exist as safetensors too
        return Card({slot: f"{error} {ADVICE[slot]}" for slot in Slot}, None)
    except CheckpointError as error:
        return Card(dict.fromkeys(Slot, str(error)), None)
    for slot in Slot:
        try:
            check_slot(found, slot)
        except CheckpointError as error:
            faults[slot] = str(error)
    return Card(faults, found.noise)


def card(path: Path) -> Card:
    """What a file or folder is good for, from memory unless it has changed since. Raises OSError when it has gone."""
    stamp = _stamp(path)
    kept = _cards.get(path)
    if kept is None or kept[0] != stamp:
        kept = _cards[path] = stamp, _examine(path)
    return kept[1]


def entries(roots: Sequence[Path]) -> dict[str, Path]:
    """Every weight file and folder below the roots, by its path from there; the first root has precedence.

    Files in a folder that is an entry itself are none. Hidden folders are left out; links are followed once.
    """
    found: dict[str, Path] = {}
    for root in roots:
        seen = set()
        for place, folders, files in os.walk(root, followlinks=True):
            folder = Path(place)
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            if folder != root and (is_pipeline(folder) or ("config.json" in files and is_component(folder))):
                found.setdefault(str(folder.relative_to(root)), folder)
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if name.lower().endswith(SUFFIXES):
                    found.setdefault(str((folder / name).relative_to(root)), folder / name)
    return found


def fitting(known: Mapping[str, Path], slot: Slot) -> list[str]:
    """The names of the entries that fit a slot, sorted; those that are named for the other expert come last."""
    other = {Slot.HIGH: "low", Slot.LOW: "high"}.get(slot)
    fits = []
    for name, path in known.items():
        try:
            kept = card(part_for(path, slot))
        except (CheckpointError, OSError):  # it gets its sentence when it is named
            continue
        if slot not in kept.faults:
            fits.append((other is not None and kept.noise == other, name.lower(), name))
    return [name for _, _, name in sorted(fits)]


def _is_inside(given: Path) -> bool:
    """Whether a path leads nowhere else than below a folder that it is put behind."""
    # Not is_absolute: on Windows C:file and \\file are not, and lead out all the same.
    return not given.anchor and ".." not in given.parts and "\0" not in str(given)


def find(roots: Sequence[Path], name: str, slot: Slot, folder: str) -> Path:
    """The file or folder that a name stands for, which need not be listed, or of a pipeline the slot's part.

    `folder` is what ComfyUI calls the roots. Raises CheckpointError when nothing below them has that name, or when
    it does not fit the slot.
    """
    ways = dict.fromkeys((Path(str(name)), Path(str(name).replace("\\", "/"))))  # it may come from Windows
    path = next((root / given for given in ways if name and _is_inside(given) for root in roots
                 if (root / given).exists()), None)
    if path is None:
        raise CheckpointError(f"{name} is not in ComfyUI's {folder} folder. Refresh the list of files (R on the "
                              "canvas), or choose another.")
    part = part_for(path, slot)
    try:
        fault = card(part).faults.get(slot)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror or error}. Give ComfyUI the right to read it, "
                              "or choose another.") from None
    if fault:
        raise CheckpointError(fault)
    return part
