"""ComfyUI's queue as the API needs it: what host/ gives, and tests may give too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..graph.nodes import Graph
from ..graph.run import RunEnd


@dataclass(frozen=True)
class QueueView:
    """ComfyUI's queue at one moment; runs are named by their prompt ids."""

    running: frozenset[str] = frozenset()
    waiting: Sequence[str] = ()
    """The next one first."""
    steps: tuple[int, int] = (0, 0)
    """Steps of the sampler that are done, and all of them, of the run at work; (0, 0) while no sampler works."""


@dataclass(frozen=True)
class RunQueue:
    """ComfyUI's queue."""

    next_number: Callable[[], float]
    """Returns the next place in the queue."""
    check: Callable[[str, Graph], list[str]]
    """(prompt id, graph) -> the graph's output nodes. Raises ValueError with ComfyUI's sentences for a graph that
    cannot run."""
    put: Callable[[str, Graph, list[str], float], None]
    """(prompt id, graph, its output nodes, place): queues a graph that was checked."""
    stop: Callable[[str], None]
    """Takes a run out of the queue, or interrupts it; does nothing for one that is in neither."""
    view: Callable[[], QueueView]
    end: Callable[[str], RunEnd | None]
    """Prompt id -> how a run ended; None for one that left no trace."""


@dataclass(frozen=True)
class Folders:
    """ComfyUI's folders."""

    own: Path = field(repr=False)
    """The pack's, with its settings and its database."""
    inputs: Path = field(repr=False)
    outputs: Path = field(repr=False)
    loras: Path = field(repr=False)
    """Of uploaded LoRAs."""
