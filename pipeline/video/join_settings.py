"""How clips are joined, as the nodes give it."""

from __future__ import annotations

from dataclasses import dataclass

from ..request import RequestError

FIND = -1
"""As the overlap: look for it."""
MOST_FADED = 4
"""Frames of a cross-fade: over more, what moves is seen twice."""
MOST_OVERLAP = 33
JOINT, EVERY_FRAME, OFF = WAYS = ("at the joint", "every frame", "off")
"""Of matching colours. JOINT: one correction for the whole clip, so that what its prompt changes stays ("everything
turns red"). EVERY_FRAME: each frame gets the statistics of the last one before the joint, which holds colours against
any drift, and undoes what a prompt changes."""
CONFORM, REFUSE = MISMATCHES = ("conform", "refuse")
"""What to do with clips of another size or rate."""
FOUND, NONE = "found", "none"
"""As new_shots: joints where the picture changes, and none."""


@dataclass(frozen=True)
class JoinSettings:
    """How clips are joined."""

    overlap: int = FIND
    """How many frames of a clip repeat the end of the one before, or FIND."""
    faded: int = MOST_FADED
    """Frames of the cross-fade; only frames that both clips show are blended, so never more than the overlap."""
    colours: str = JOINT
    """One of WAYS."""
    strength: float = 1.0
    new_shots: frozenset[int] | None = None
    """Numbers of the clips, from 1, that begin a new shot; None: those that show another picture."""

    def check(self, clips: int) -> None:
        """Raise RequestError for what cannot be, for that many clips."""
        if not FIND <= self.overlap <= MOST_OVERLAP:
            raise RequestError(f"overlap is {self.overlap}; choose 0 to {MOST_OVERLAP} frames, or {FIND} to have it "
                               "found.")
        if not 0 <= self.faded <= MOST_FADED:
            raise RequestError(f"cross_fade is {self.faded}; choose 0 to {MOST_FADED} frames.")
        if self.colours not in WAYS:
            raise RequestError(f"match_colours is {self.colours!r}; choose one of {', '.join(WAYS)}.")
        if not 0 <= self.strength <= 1:
            raise RequestError(f"strength is {self.strength:g}; choose 0 to 1.")
        if wrong := sorted(number for number in self.new_shots or () if not 2 <= number <= clips):
            raise RequestError(f"new_shots names clip {wrong[0]}; of {clips} clips, 2 to {clips} can begin a new shot.")


def read_new_shots(text: str) -> frozenset[int] | None:
    """Return the numbers in "2, 5"; an empty set for NONE, None for FOUND. Raises RequestError for other text."""
    text = text.strip()
    if text == FOUND:
        return None
    if text == NONE:
        return frozenset()
    parts = text.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise RequestError(f"new_shots is {text!r}; give {FOUND}, {NONE}, or the numbers of the clips that begin a new "
                           "shot, such as 2, 5.")
    return frozenset(map(int, parts))
