"""The cuts of a long clip beside its segments: kept as they were, and a damaged file is as none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.long_clip.cuts_file import keep_cuts
from pipeline.models.tiles import Cuts, TileGrid

GRID = TileGrid(((0, 20), (12, 20)), ((0, 38),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two rows of tiles."""
    cuts = Cuts()
    keep_cuts(cuts, tmp_path / "cuts.json")
    cuts.settle_encoding(True)
    cuts.settle_decoding(GRID)
    return tmp_path / "cuts.json"


def read(path: Path) -> Cuts:
    cuts = Cuts()
    keep_cuts(cuts, path)
    return cuts


def test_another_run_finds_them(path: Path) -> None:
    found = read(path)
    assert (found.encode_in_tiles, found.decode) == (True, GRID)
    (path.parent / "clip.mp4").touch()
    assert path.stat().st_mode == (path.parent / "clip.mp4").stat().st_mode, "another user may go on"


@pytest.mark.parametrize("change", [
    {"encode_in_tiles": "yes"}, {"rows": []}, {"rows": [[0, 20], [12]]}, {"rows": [[0, 20], [12, 21]]},
    {"rows": [[4, 20], [12, 20]]}, {"rows": [[0, 20], [21, 20]]}, {"rows": [[0, 20], [0, 20]]}, {"columns": [[0, 0]]},
    {"columns": [["0", "38"]]}, {"columns": None},
], ids=str)
def test_a_damaged_file_is_as_none(path: Path, change: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = read(path)
    assert found.encode_in_tiles is found.decode is None
