"""A queue of ComfyUI's for the API's service, without ComfyUI: runs go one at a time, when the test says so."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.graph.run import ERROR, INTERRUPTED, RunEnd
from pipeline.serve.recipe import SAVERS
from pipeline.serve.runs import Folders, QueueView, RunQueue
from pipeline.serve.service import Service


@dataclass
class Runs:
    """Its methods are those of RunQueue; `turn` is the worker's."""

    outputs: Path
    waiting: list[tuple[float, str, dict]] = field(default_factory=list)
    running: tuple[float, str, dict] | None = None
    ends: dict[str, RunEnd] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    """Ids of the clips that were made, in order."""
    steps: tuple[int, int] = (0, 0)
    refusal: str = ""
    """What ComfyUI says of any graph; "" when it takes it."""
    _number: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def queue(self) -> RunQueue:
        return RunQueue(self._next_number, self._check, self._put, self._stop, self._view, self._end)

    def begin(self) -> str:
        """Let the next run begin; return its id."""
        with self._lock:
            self.running = self.waiting.pop(0)
            return self.running[1]

    def finish(self, error: RunEnd | None = None) -> None:
        """Let the run at work end: with a clip, or with an error."""
        with self._lock:
            _, name, graph = self.running
            if error is None:
                self.write_clip(graph)
                self.done.append(name)
            self.ends[name], self.running = error or RunEnd(), None

    def write_clip(self, graph: dict) -> None:
        """Write the file that a graph's Save MP4 would."""
        prefix = next(node["inputs"]["filename_prefix"] for node in graph.values() if node["class_type"] in SAVERS)
        path = self.outputs / f"{prefix}_00001_.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"clip")

    def _next_number(self) -> float:
        self._number += 1
        return self._number

    def _check(self, name: str, graph: dict) -> list[str]:
        if self.refusal:
            raise ValueError(self.refusal)
        return [node for node, found in graph.items() if found["class_type"] in SAVERS]

    def _put(self, name: str, graph: dict, outputs: list[str], number: float) -> None:
        with self._lock:
            assert name not in {item[1] for item in self.waiting}
            self.waiting = sorted([*self.waiting, (number, name, graph)], key=lambda item: item[:2])

    def _stop(self, name: str) -> None:
        with self._lock:
            self.waiting = [item for item in self.waiting if item[1] != name]
            if self.running and self.running[1] == name:
                self.finish(RunEnd(INTERRUPTED))

    def _view(self) -> QueueView:
        with self._lock:
            running = frozenset({self.running[1]} if self.running else ())
            return QueueView(running, [item[1] for item in self.waiting], self.steps)

    def _end(self, name: str) -> RunEnd | None:
        return self.ends.get(name)


@dataclass
class Machine:
    """A computer on which ComfyUI is started and killed: its folders stay, its queue does not."""

    base: Path
    clock: list[float] = field(default_factory=lambda: [1_800_000_000.0])
    """Its time, in seconds since 1970."""

    def __post_init__(self) -> None:
        self.folders = Folders(self.base / "own", self.base / "input", self.base / "output", self.base / "uploads")
        self.folders.own.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.runs = Runs(self.folders.outputs)
        self.service = Service(self.folders, self.runs.queue(), lambda kind, name: False, lambda: self.clock[0])
        self.service.take_up_all()

    def restart(self) -> None:
        """Kill ComfyUI and start it again."""
        self.service.runs.clear()  # what is left of the old one does nothing more
        self.start()


def failed(error_type: str, message: str) -> RunEnd:
    """Return the end of a run whose node raised."""
    return RunEnd(ERROR, error=message, error_type=error_type)
