"""Make the segments of a long clip one after the other, each on the disk before the next one begins.

What is on the disk already is taken from there, and a segment goes on from the files of the one before it, never from
what is in memory: so a run that was stopped anywhere, or killed, ends with the same bits as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..request import RequestError
from .folder import END, LATENTS, PIECE, SegmentFolder
from .frames import Colours, SegmentFrames
from .plan import Plan, PlannedSegment

if TYPE_CHECKING:
    from ..models.condition import Condition


Encode = Callable[[Iterator[torch.Tensor], Path], None]


@dataclass(frozen=True)
class Before:
    """What a segment goes on from."""

    tail: torch.Tensor
    """The last frames of the segment before, as they are shown, (n, H, W, 3), float32 0..1."""
    last_latent: torch.Tensor
    """Its last raw latent, (1, 16, 1, h, w)."""


@dataclass(frozen=True)
class Engine:
    """The work on one segment, as functions; make.py makes them of this pack's own parts."""

    condition: Callable[[PlannedSegment, Before | None], Condition]
    sample: Callable[[PlannedSegment, Condition, Before | None], torch.Tensor]
    """-> raw latents (1, 16, T, h, w), float32."""
    decode: Callable[[PlannedSegment, torch.Tensor], Iterator[torch.Tensor]]
    """-> IMAGE pieces (f, H, W, 3), float32 0..1."""
    encode: Encode
    """Writes frames as a piece: a video file of its own."""


@dataclass(frozen=True)
class SegmentFiles:
    """The files of a segment, None where there is none yet, and a sentence on each that is damaged."""

    latents: Path | None
    end: Path | None
    piece: Path | None
    faults: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """True when nothing is left to do for this segment."""
        return None not in (self.latents, self.end, self.piece)


def first_missing(found: Sequence[SegmentFiles]) -> int | None:
    """Return the place, from 1, of the first segment for which something is left to do; None when there is none."""
    return next((place for place, files in enumerate(found, 1) if not files.whole), None)


@dataclass(frozen=True)
class SegmentKeys:
    """Keys of a segment's files: the end and the piece depend on more than the latents do."""

    latents: str
    end: str
    piece: str


def find_segments(folder: SegmentFolder, keys: Sequence[SegmentKeys]) -> list[SegmentFiles]:
    """Return the files that are there already, verified by their hashes."""
    found = []
    for place, of_segment in enumerate(keys, 1):
        files = [folder.find(place, of_segment.latents, LATENTS), folder.find(place, of_segment.end, END),
                 folder.find(place, of_segment.piece, PIECE)]
        found.append(SegmentFiles(*(path for path, _ in files), tuple(fault for _, fault in files if fault)))
    return found


def make_segments(plan: Plan, keys: Sequence[SegmentKeys], found: Sequence[SegmentFiles], folder: SegmentFolder,
                  engine: Engine, colours: Colours) -> Iterator[SegmentFiles]:
    """Yield the files of each segment, in order, when they are whole: those that were found, or new ones.

    Raises what the engine raises, and RequestError when the disk refuses; all that was yielded is kept.
    """
    end: Path | None = None
    for planned, of_segment, files in zip(plan.segments, keys, found, strict=True):
        if not files.whole:
            before = None if end is None else read_end(end)
            files = _make(planned, of_segment, files.latents, folder, engine, before, colours, plan.tail)
        end = files.end
        yield files


def _make(planned: PlannedSegment, keys: SegmentKeys, latents: Path | None, folder: SegmentFolder, engine: Engine,
          before: Before | None, colours: Colours, tail_length: int) -> SegmentFiles:
    """Return the files of a segment, of which the latents may be there."""
    place = planned.place
    if latents is None:
        samples = engine.sample(planned, engine.condition(planned, before), before)
        latents = folder.write(place, keys.latents, LATENTS, lambda path: _save(path, _latent_tensors(samples)))
    samples = read_latents(latents)
    matched = None if planned.segment.new_shot else colours
    frames = SegmentFrames(engine.decode(planned, samples), planned, None if before is None else before.tail, matched,
                           tail_length)
    piece = folder.write(place, keys.piece, PIECE, lambda path: engine.encode(frames.shown(), path))
    tensors = {"tail": frames.tail, "last_latent": samples[:, :, -1:].contiguous()}
    end = folder.write(place, keys.end, END, lambda path: _save(path, tensors))
    return SegmentFiles(latents, end, piece)


def _latent_tensors(samples: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that core's Load Latent opens (nodes.py, SaveLatent)."""
    return {"latent_tensor": samples.contiguous(), "latent_format_version_0": torch.tensor([])}


def _save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    path.write_bytes(save(tensors))  # save_file tells of a full disk with an error of its own


def read_latents(path: Path) -> torch.Tensor:
    """Return the raw latents (1, 16, T, h, w) in a segment's file."""
    return _read(path, "latent_tensor")["latent_tensor"]


def read_end(path: Path) -> Before:
    """Return what the next segment goes on from."""
    return Before(**_read(path, "tail", "last_latent"))


def _read(path: Path, *names: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{path.name} has gone or cannot be read ({error}). Run the same again: it is made "
                           "anew.") from error
