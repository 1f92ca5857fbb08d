"""The cuts of a long clip's frames, kept beside its segments: a run that goes on under more or less free memory ends
with the same bits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from ..files.atomic import read_json_object, replace_file
from ..models.tiles import Cuts, TileGrid
from ..request import RequestError


def keep_cuts(cuts: Cuts, path: Path) -> None:
    """Take the cuts in a file, if there are any, and write them there whenever they change.

    A file that cannot be read is as none, and so is one that this did not write. The writing raises RequestError.
    """
    try:
        cuts.encode_in_tiles, cuts.decode = _read(path)
    except (OSError, ValueError, TypeError, KeyError):
        cuts.encode_in_tiles = cuts.decode = None

    def write() -> None:
        grid = {} if cuts.decode is None else {"rows": cuts.decode.rows, "columns": cuts.decode.columns}
        try:
            with replace_file(path.parent, path.suffix) as file:
                file.path = path
                file.unfinished.write_text(json.dumps({"encode_in_tiles": cuts.encode_in_tiles, **grid}), "utf-8")
        except OSError as error:
            raise RequestError(f"{path} could not be written: {error.strerror or error}. Free some space, and run the "
                               "same again: what is finished is kept.") from error

    cuts.on_change = write


def _read(path: Path) -> tuple[bool | None, TileGrid | None]:
    """Return whether frames are encoded in tiles, and the tiles in which they are decoded; None for what is not
    settled. Raises OSError, ValueError, TypeError or KeyError."""
    found = read_json_object(path)
    in_tiles = found["encode_in_tiles"]
    if not isinstance(in_tiles, bool | None):
        raise TypeError(in_tiles)
    return in_tiles, TileGrid(_parts(found["rows"]), _parts(found["columns"])) if "rows" in found else None


def _parts(found: list[list[int]]) -> tuple[tuple[int, int], ...]:
    """Return (first latent, number of latents) of the tiles along a side. Raises ValueError or TypeError where they are
    not of one size, one after the other without a hole from the first latent on."""
    parts = tuple((start, size) for start, size in found)
    if not parts or any(type(value) is not int for part in parts for value in part):
        raise TypeError(found)
    starts, size = [start for start, _ in parts], parts[0][1]
    steps = [after - before for before, after in pairwise(starts)]
    if starts[0] != 0 or size < 1 or any(other != size for _, other in parts) or not all(0 < s <= size for s in steps):
        raise ValueError(found)
    return parts
