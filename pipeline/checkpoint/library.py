"""The weights in some model folders: which there are, and which fit a slot. Headers are read once for each change.

The places that a model's weights go to, what fits each, and one sentence for what does not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import CheckpointError, PickleError
from .folder import is_component, is_pipeline, vocabulary_file
from .gguf_file import READABLE
from .kinds import I2V_IN_CHANNELS, Kind, Layout
from .probe import Found, SchemeFamily, probe, shown_name


class Slot(str, Enum):
    """A place in Load Wan 2.2; the value is the input's name."""

    HIGH = "high_noise_expert"
    LOW = "low_noise_expert"
    TEXT = "text_encoder"
    VAE = "vae"


EXPERTS = (Slot.HIGH, Slot.LOW)
WANTED = {Slot.HIGH: Kind.WAN22_I2V_EXPERT, Slot.LOW: Kind.WAN22_I2V_EXPERT, Slot.TEXT: Kind.UMT5,
          Slot.VAE: Kind.VAE_WAN21}
ADVICE = {
    Slot.HIGH: "Choose a Wan 2.2 I2V-A14B expert such as wan2.2_i2v_high_noise_14B_fp16.safetensors.",
    Slot.LOW: "Choose a Wan 2.2 I2V-A14B expert such as wan2.2_i2v_low_noise_14B_fp16.safetensors.",
    Slot.TEXT: "Choose a text encoder such as umt5_xxl_fp16.safetensors.",
    Slot.VAE: "Choose wan_2.1_vae.safetensors.",
}
NEEDED = {Slot.HIGH: "a Wan 2.2 I2V-A14B expert", Slot.LOW: "a Wan 2.2 I2V-A14B expert",
          Slot.TEXT: "a UMT5 text encoder", Slot.VAE: "the VAE of Wan 2.1 (16 channels), which the 14B models use"}
NOTHING_FOR = {Slot.HIGH: "Wan transformer", Slot.LOW: "Wan transformer", Slot.TEXT: "UMT5 encoder",
               Slot.VAE: "Wan VAE"}
PARTS = {Slot.HIGH: "transformer", Slot.LOW: "transformer_2", Slot.TEXT: "text_encoder", Slot.VAE: "vae"}
"""The folder of each in a diffusers pipeline."""
CALLED = {
    Kind.WAN22_I2V_EXPERT: "a Wan 2.2 I2V-A14B expert",
    Kind.WAN21_I2V: "a Wan 2.1 image-to-video model (it has an image projection)",
    Kind.T2V: "a text-to-video model",
    Kind.TI2V_5B: "a 5B text-and-image-to-video model",
    Kind.VACE: "a VACE model (it has blocks for control video)",
    Kind.FUN_CONTROL: "a Fun-Control model",
    Kind.FUN_CAMERA: "a Fun-Camera model (it has a control adapter)",
    Kind.S2V: "a speech-to-video model (it has an audio encoder)",
    Kind.ANIMATE: "a Wan Animate model (it has a face adapter)",
    Kind.HUMO: "a HuMo model (it has an audio projection)",
    Kind.SCAIL: "a SCAIL model (it reads poses)",
    Kind.WANDANCER: "a WanDancer model",
    Kind.OTHER_WAN: "another Wan model",
    Kind.VAE_WAN21: "the VAE of Wan 2.1",
    Kind.VAE_WAN22: "the VAE of Wan 2.2 5B (48 latent channels)",
    Kind.UMT5: "a UMT5 text encoder",
    Kind.T5: "a T5 text encoder",
    Kind.LORA: "a LoRA",
    Kind.PIPELINE: "a whole diffusers pipeline",
}


def _wrong(found: Found, slot: Slot) -> str:
    """What was given and what it is not, with the number or the part that tells."""
    called = CALLED[found.kind]
    if slot in EXPERTS and found.shape is not None and found.shape.in_channels != I2V_IN_CHANNELS:
        return f"{called}: {found.shape.in_channels} input channels, Wan 2.2 I2V-A14B needs {I2V_IN_CHANNELS}"
    if found.kind is Kind.OTHER_WAN and found.odd_part:
        called = f"{called} (it has a part called {found.odd_part})"
    return f"{called}, not {NEEDED[slot]}"


def _check_storage(found: Found, slot: Slot) -> None:
    """What no loader reads: scales of unknown meaning, GGUF types that nothing unpacks, and of text encoder and VAE
    some layouts that experts have."""
    name, called = found.name, CALLED[found.kind]
    if found.scheme.family is SchemeFamily.OTHER:
        raise CheckpointError(f"{name} is {called} in {found.scheme.name}, which cannot be read. {ADVICE[slot]}")
    if slot in EXPERTS:
        odd = sorted(set(found.header.dtypes.values()) - set(READABLE)) if found.layout is Layout.GGUF else []
        if odd:
            raise CheckpointError(f"{name} is {called} with weights in {', '.join(odd)}, which cannot be read; of GGUF "
                                  f"these can: {', '.join(READABLE)}. {ADVICE[slot]}")
        return
    if found.layout is Layout.GGUF:
        raise CheckpointError(f"{name} is {called} in GGUF, which is read for experts only. {ADVICE[slot]}")
    if slot is Slot.VAE and found.scheme.family is not SchemeFamily.PLAIN:
        raise CheckpointError(f"{name} is {called} in {found.scheme.name}; fp16, bf16 and fp32 are read. "
                              f"{ADVICE[slot]}")
    if found.layout is Layout.OFFICIAL:
        raise CheckpointError(f"{name} is {called} under the official code's names, which are not read. "
                              f"{ADVICE[slot]}")
    if slot is Slot.TEXT and not _has_vocabulary(found):
        raise CheckpointError(f"{name} holds no vocabulary (spiece_model). Use Comfy-Org's single file, or the folder "
                              "of a pipeline with its tokenizer folder.")


def _has_vocabulary(found: Found) -> bool:
    path = found.header.path
    return vocabulary_file(path) is not None if path.is_dir() else "spiece_model" in found.header.shapes


def check_slot(found: Found, slot: Slot) -> None:
    """Raise CheckpointError, in a sentence that says what was given and what to choose, unless the slot takes it.

    The noise level is not looked at: the names of files are no proof. See `pipeline.load.hints`.
    """
    if found.kind is Kind.UNKNOWN:
        raise CheckpointError(f"{found.name} holds no {NOTHING_FOR[slot]}. {ADVICE[slot]}")
    if found.kind is not WANTED[slot]:
        raise CheckpointError(f"{found.name} is {_wrong(found, slot)}. {ADVICE[slot]}")
    _check_storage(found, slot)


def part_for(path: Path, slot: Slot) -> Path:
    """The path itself, or of a whole pipeline the part for the slot.

    Raises CheckpointError when the pipeline has no such part.
    """
    if not is_pipeline(path):
        return path
    part = path / PARTS[slot]
    if not is_component(part):
        raise CheckpointError(f"The pipeline {shown_name(path)} has no {PARTS[slot]} folder with weights. "
                              f"{ADVICE[slot]}")
    return part

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
