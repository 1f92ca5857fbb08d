"""Find the weights in model folders that fit a slot of Load Wan 2.2, and say in a sentence why others do not.

Headers are read once, and again when a file has changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..packages import package_fault
from .errors import CheckpointError, PickleError
from .folder import INDEX_SUFFIX, is_component, is_pipeline
from .gguf_file import READABLE
from .kinds import I2V_IN_CHANNELS, KeyLayout, ModelKind
from .probe import CheckpointFacts, StorageFamily, probe_checkpoint, weights_name
from .shards import parts_beside
from .vocabulary import has_vocabulary, no_vocabulary, vocabulary_file


class Slot(str, Enum):
    """An input of Load Wan 2.2 that takes weights; the value is its name."""

    HIGH = "high_noise_expert"
    LOW = "low_noise_expert"
    TEXT = "text_encoder"
    VAE = "vae"


EXPERTS = (Slot.HIGH, Slot.LOW)
WANTED = {Slot.HIGH: ModelKind.WAN22_I2V_EXPERT, Slot.LOW: ModelKind.WAN22_I2V_EXPERT, Slot.TEXT: ModelKind.UMT5,
          Slot.VAE: ModelKind.VAE_WAN21}
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
"""Slot -> its folder in a diffusers pipeline."""
CALLED = {
    ModelKind.WAN22_I2V_EXPERT: "a Wan 2.2 I2V-A14B expert",
    ModelKind.WAN21_I2V: "a Wan 2.1 image-to-video model (it has an image projection)",
    ModelKind.T2V: "a text-to-video model",
    ModelKind.TI2V_5B: "a 5B text-and-image-to-video model",
    ModelKind.VACE: "a VACE model (it has blocks for control video)",
    ModelKind.FUN_CONTROL: "a Fun-Control model",
    ModelKind.FUN_CAMERA: "a Fun-Camera model (it has a control adapter)",
    ModelKind.S2V: "a speech-to-video model (it has an audio encoder)",
    ModelKind.ANIMATE: "a Wan Animate model (it has a face adapter)",
    ModelKind.HUMO: "a HuMo model (it has an audio projection)",
    ModelKind.SCAIL: "a SCAIL model (it reads poses)",
    ModelKind.WANDANCER: "a WanDancer model",
    ModelKind.OTHER_WAN: "another Wan model",
    ModelKind.VAE_WAN21: "the VAE of Wan 2.1",
    ModelKind.VAE_WAN22: "the VAE of Wan 2.2 5B (48 latent channels)",
    ModelKind.VAE_OTHER: "a VAE made for other uses of Wan 2.1's latents",
    ModelKind.UMT5: "a UMT5 text encoder",
    ModelKind.T5: "a T5 text encoder",
    ModelKind.LORA: "a LoRA",
    ModelKind.PIPELINE: "a whole diffusers pipeline",
}
"""Names of the models in messages."""
SUFFIXES = (".safetensors", ".sft", ".gguf")
Stamp = tuple[tuple[tuple[str, int, int], ...], tuple[bool, ...]]
"""Name, size in bytes and modification time in nanoseconds of each file; and which neighbours a folder has."""


@dataclass(frozen=True)
class Suitability:
    """The fault for each slot that weights do not fit, and what else the lists and notes need of their facts.

    CheckpointFacts would take 100s of kB. `formats`, `besides`: see Storage and CheckpointFacts.
    """

    faults: Mapping[Slot, str]
    noise: str | None
    besides: tuple[str, ...] = ()
    formats: frozenset[str] = frozenset()

    def fault(self, slot: Slot, name: str, readable: frozenset[str] | None) -> str | None:
        """Return the fault for a slot, where a host reads these formats; None for none. `name`: for the sentence."""
        odd = sorted(self.formats - readable) if readable is not None else []
        if slot in self.faults or not odd:
            return self.faults.get(slot)
        return (f"{name} has weights in {', '.join(odd)}, which this ComfyUI does not read. Update it, or choose an "
                "fp16, fp8_scaled or GGUF file.")


_known: dict[Path, tuple[Stamp, Suitability]] = {}


def list_weights(roots: Sequence[Path]) -> dict[str, Path]:
    """Return every weight file and folder below the roots by its relative path; the first root has precedence.

    Files inside a listed folder are not listed. Hidden folders are skipped; a linked folder is visited once.
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
            if folder != root and (is_pipeline(folder) or (_may_be_component(files) and is_component(folder))):
                found.setdefault(str(folder.relative_to(root)), folder)
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if name.lower().endswith(SUFFIXES):
                    found.setdefault(str((folder / name).relative_to(root)), folder / name)
    return found


def _may_be_component(files: Sequence[str]) -> bool:
    """True when the names in a folder are worth a second look."""
    return any(name == "config.json" or name.endswith(INDEX_SUFFIX) for name in files)


def fitting_names(known: Mapping[str, Path], slot: Slot, readable: frozenset[str] | None = None) -> list[str]:
    """Return the sorted names of the weights that fit a slot; those named for the other expert come last.

    `readable`: the host's quantised formats; None: any.
    """
    other = {Slot.HIGH: "low", Slot.LOW: "high"}.get(slot)
    fits = []
    for name, path in known.items():
        try:
            kept = suitability(part_for(path, slot))
        except (CheckpointError, OSError):  # the sentence comes when it is chosen
            continue
        if kept.fault(slot, name, readable) is None:
            fits.append((other is not None and kept.noise == other, name.lower(), name))
    return [name for _, _, name in sorted(fits)]


def find_weights(roots: Sequence[Path], name: str, slot: Slot, folder: str,
                 readable: frozenset[str] | None = None) -> Path:
    """Return the file or folder with that name below the roots, listed or not; for a pipeline, the slot's part.

    `folder` is ComfyUI's name of the roots; `readable` are its quantised formats, None for any. Raises CheckpointError
    when there is none, or when it does not fit the slot.
    """
    ways = dict.fromkeys((Path(str(name)), Path(str(name).replace("\\", "/"))))  # a name may come from Windows
    path = next((root / given for given in ways if name and _is_inside(given) for root in roots
                 if (root / given).exists()), None)
    if path is None:
        raise CheckpointError(f"{name} is not in ComfyUI's {folder} folder. Refresh the list of files (R on the "
                              "canvas), or choose another.")
    part = part_for(path, slot)
    try:
        fault = suitability(part).fault(slot, name, readable)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror or error}. Give ComfyUI the right to read it, "
                              "or choose another.") from None
    if fault:
        raise CheckpointError(fault)
    return part


def _is_inside(given: Path) -> bool:
    """True when a path, joined to a folder, stays inside it."""
    # Not is_absolute: on Windows C:file and \\file are not, and lead out all the same.
    return not given.anchor and ".." not in given.parts and "\0" not in str(given)


def part_for(path: Path, slot: Slot) -> Path:
    """Return the path itself or, for a whole pipeline, its part for the slot.

    Raises CheckpointError when the pipeline has no such part.
    """
    if not is_pipeline(path):
        return path
    part = path / PARTS[slot]
    if not is_component(part):
        raise CheckpointError(f"The pipeline {weights_name(path)} has no {PARTS[slot]} folder with weights. "
                              f"{ADVICE[slot]}")
    return part


def check_slot(found: CheckpointFacts, slot: Slot) -> None:
    """Raise CheckpointError, saying what was given and what to choose, unless the weights fit the slot.

    High or low noise is not checked, because only names show it: see models/load.py, `pair_warnings`.
    """
    if found.kind is ModelKind.UNKNOWN:
        raise CheckpointError(f"{found.name} holds no {NOTHING_FOR[slot]}. {ADVICE[slot]}")
    if found.kind is not WANTED[slot]:
        raise CheckpointError(f"{found.name} is {_wrong(found, slot)}. {ADVICE[slot]}")
    _check_storage(found, slot)


def _wrong(found: CheckpointFacts, slot: Slot) -> str:
    """Return what was given and what is needed, with the number or the part that shows it."""
    called = CALLED[found.kind]
    if slot in EXPERTS and found.shape is not None and found.shape.in_channels != I2V_IN_CHANNELS:
        return f"{called}: {found.shape.in_channels} input channels, Wan 2.2 I2V-A14B needs {I2V_IN_CHANNELS}"
    if found.kind is ModelKind.VAE_OTHER:
        called = f"{called} ({found.odd_part})"
    if found.kind is ModelKind.OTHER_WAN and found.odd_part:
        called = f"{called} (it has a part called {found.odd_part})"
    return f"{called}, not {NEEDED[slot]}"


def _check_storage(found: CheckpointFacts, slot: Slot) -> None:
    """Raise CheckpointError for storage that no loader reads.

    That is scales of unknown meaning, GGUF types that nothing dequantises, and for the VAE all but plain dtypes.
    """
    name, called = found.name, CALLED[found.kind]
    if found.storage.family is StorageFamily.OTHER:
        raise CheckpointError(f"{name} is {called} in {found.storage.name}, which cannot be read. {ADVICE[slot]}")
    if slot is not Slot.VAE:
        odd = sorted(set(found.header.dtypes.values()) - set(READABLE)) if found.layout is KeyLayout.GGUF else []
        if odd:
            raise CheckpointError(f"{name} is {called} with weights in {', '.join(odd)}, which cannot be read; of GGUF "
                                  f"these can: {', '.join(READABLE)}. {ADVICE[slot]}")
    if slot is Slot.VAE and found.layout is KeyLayout.GGUF:
        raise CheckpointError(f"{name} is {called} in GGUF, which is read for experts and text encoders only. "
                              f"{ADVICE[slot]}")
    if slot is Slot.VAE and found.storage.family is not StorageFamily.PLAIN:
        raise CheckpointError(f"{name} is {called} in {found.storage.name}; fp16, bf16 and fp32 are read. "
                              f"{ADVICE[slot]}")
    if slot is Slot.TEXT and not has_vocabulary(found.header):
        raise CheckpointError(no_vocabulary(name))


def suitability(path: Path) -> Suitability:
    """Return which slots a file or folder fits, cached until it changes. Raises OSError when it does not exist."""
    stamp = _stamp(path)
    kept = _known.get(path)
    if kept is None or kept[0] != stamp:
        kept = _known[path] = stamp, _examine(path)
    return kept[1]


def _stamp(path: Path) -> Stamp:
    folder = path.is_dir()
    files = sorted(file for file in path.iterdir() if file.is_file()) if folder else parts_beside(path)
    return (tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
            _beside(path) if folder else (vocabulary_file(path) is not None,))


def _beside(folder: Path) -> tuple[bool, ...]:
    """Return which neighbours a component has that matter: a tokenizer, the other parts of its pipeline."""
    pipeline = folder.parent
    return (vocabulary_file(folder) is not None, is_pipeline(pipeline),
            *((pipeline / part).is_dir() for part in PARTS.values()))


def _examine(path: Path) -> Suitability:
    faults = {}
    try:
        found = probe_checkpoint(path)
    except PickleError as error:  # often the official files, which exist as safetensors too
        return Suitability({slot: f"{error} {ADVICE[slot]}" for slot in Slot}, None)
    except CheckpointError as error:
        return Suitability(dict.fromkeys(Slot, str(error)), None)
    except ImportError as error:  # of the package that reads this kind of file: the other files are listed still
        return Suitability(dict.fromkeys(Slot, str(package_fault(error) or error)), None)
    for slot in Slot:
        try:
            check_slot(found, slot)
        except CheckpointError as error:
            faults[slot] = str(error)
    return Suitability(faults, found.noise, found.besides, found.storage.formats)
