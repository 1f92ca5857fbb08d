"""What a measure says of a clip."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The value of one measure, in the unit that its function names."""

    value: float
    frames: tuple[int, ...] = ()
    """Indices of the frames that it is due to, the worst first."""


NOTHING = Finding(0.0)
