"""Frames that are broken, flashes, and flicker: faults of brightness."""

from __future__ import annotations

import statistics

from .facts import ClipFacts
from .finding import NOTHING, Finding

BLACK, WHITE, FLAT = 0.02, 0.98, 0.01
"""Mean luma of a black and of a white frame, and deviation of one that shows nothing."""
ABRUPT = 0.04
"""A frame turns black by a fault when the luma changes by more than this from one frame to the next; a fade takes
longer."""
NEIGHBOURS = ((1, 1), (1, 2), (2, 1))
"""Frames before and behind with which a frame is compared: flashes last one or two frames."""


def broken(facts: ClipFacts) -> Finding:
    """Return how many frames have values that are not numbers, or turn black, white or flat from one to the next.

    A fade ends in such frames too, and is none of them. A clip that is nothing else is broken as a whole.
    """
    shows_nothing = [mean < BLACK or mean > WHITE or spread < FLAT
                     for mean, spread in zip(facts.mean, facts.deviation, strict=True)]
    found = {index for index, finite in enumerate(facts.finite) if not finite}
    for run in _runs(shows_nothing):
        edges = [abs(facts.mean[a] - facts.mean[b]) for a, b in ((run[0], run[0] - 1), (run[-1], run[-1] + 1))
                 if 0 <= b < len(facts)]
        if not edges or max(edges) > ABRUPT:
            found.update(run)
    return Finding(float(len(found)), tuple(sorted(found)))


def flash(facts: ClipFacts, skipped: frozenset[int]) -> Finding:
    """Return by how much luma one frame, or two, are brighter or darker than those before and behind; with them."""
    worst = NOTHING
    usual = statistics.median(facts.flicker)
    for index in range(len(facts)):
        for before, behind in NEIGHBOURS:
            around = (index - before, index + behind)
            if around[0] < 0 or around[1] >= len(facts) or skipped & set(range(around[0], around[1] + 1)):
                continue
            rises = [facts.mean[index] - facts.mean[other] for other in around]
            value = min(map(abs, rises)) - 4 * usual if rises[0] * rises[1] > 0 else 0.0
            if value > worst.value:
                other = index + 1 if behind == 2 else index - 1 if before == 2 else index
                worst = Finding(value, tuple(sorted({index, other})))
    return worst


def flicker(facts: ClipFacts) -> Finding:
    """Return by how much luma the median block of the median frame differs from the mean of its neighbours.

    What moves changes fewer than half of the blocks, and grain averages out in a block.
    """
    values = facts.flicker[1:-1]
    return Finding(statistics.median(values)) if values else NOTHING


def _runs(flags: list[bool]) -> list[list[int]]:
    """Return the indices of neighbours that are True, run by run."""
    runs: list[list[int]] = []
    for index, flag in enumerate(flags):
        if flag and index and flags[index - 1]:
            runs[-1].append(index)
        elif flag:
            runs.append([index])
    return runs
