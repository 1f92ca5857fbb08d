"""The note of what is there, while several threads write it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.download.partial import Partial


def test_notes_at_the_same_time_do_not_spoil_each_other(tmp_path: Path) -> None:
    """A note that waits for the disk may still be under way when the last one is written."""
    size = 64
    partial = Partial(tmp_path, "name")
    partial.begin('"1"', size, parts=True)

    def arrive(at: int) -> None:
        partial.write(at, b"x")
        partial.keep()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(arrive, range(size)))
    assert partial.noted == Partial(tmp_path, "name").done == size
