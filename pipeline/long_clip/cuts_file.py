"""The cuts of a long clip's frames, kept beside its segments: a run that goes on under more or less free memory ends
with the same bits."""

from __future__ import annotations

from pathlib import Path

from ..files.atomic import read_json_object, write_json_object
from ..models.tiles import Cuts, TileGrid
from ..request import RequestError


def keep_cuts(cuts: Cuts, path: Path) -> None:
    """Take the cuts in a file, if there are any, and write them there whenever they change.

    A file that cannot be read is as none. The writing raises RequestError.
    """
    try:
        found = read_json_object(path)
        cuts.encode_in_tiles = found.get("encode_in_tiles")
        if found.get("rows"):
            rows, columns = (tuple((start, size) for start, size in found[name]) for name in ("rows", "columns"))
            cuts.decode = TileGrid(rows, columns)
    except (OSError, ValueError, TypeError, KeyError):
        cuts.encode_in_tiles = cuts.decode = None

    def write() -> None:
        grid = {} if cuts.decode is None else {"rows": cuts.decode.rows, "columns": cuts.decode.columns}
        try:
            write_json_object(path, {"encode_in_tiles": cuts.encode_in_tiles, **grid})
        except OSError as error:
            raise RequestError(f"{path} could not be written: {error.strerror or error}. Free some space, and run the "
                               "same again: what is finished is kept.") from error

    cuts.on_change = write
