"""Where jobs that this process drives stand in their provider's queue; as of the last poll, and in memory alone."""

from __future__ import annotations

_places: dict[str, int] = {}


def note_place(job_id: str, place: int | None) -> None:
    """Note a place, 0 for the next one; None when the job is not in a queue, or nobody says where."""
    if place is None:
        _places.pop(job_id, None)
    else:
        _places[job_id] = place


def place_of(job_id: str) -> int | None:
    """The place that was told last."""
    return _places.get(job_id)
