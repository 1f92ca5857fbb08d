"""Run the parts, each in a process of its own, within the time that there is."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.gpu import worker
from bench.gpu.plan import ENGINES, FULL, SMALL, Found, Part, Row
from bench.gpu.report import Report
from devtools.terminal import DevError

ROW_SECONDS = 240.0
"""After which a row of one engine is given up."""
ENDING_SECONDS = 20.0
"""That a process may take to end."""
ERROR_LINES = 8
"""Of what a process printed before it ended."""
MEMORY_DISK = Path("/dev/shm")
SPARE_MEMORY, SPARE_DISK = 16e9, 2e9
"""Bytes of RAM that stay free beside weights in MEMORY_DISK, and bytes of a disk."""


@dataclass(frozen=True)
class Setting:
    """The folder, the device and the time to measure with."""

    scratch: Path
    small: bool
    on_cpu: bool
    until: float
    """On the clock of time.monotonic."""
    environ: dict[str, str]

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.until - time.monotonic()


class Worker:
    """A process that measures; a context manager that ends it."""

    def __init__(self, setting: Setting, orders: dict[str, Any]) -> None:
        command = [sys.executable, str(Path(__file__).parent), "--worker"]
        self.log = setting.scratch / "worker.log"
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink,
                                             env=setting.environ, encoding="utf-8", errors="replace")
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        with contextlib.suppress(OSError):  # it has ended already: no answer will come
            print(json.dumps(orders), file=self._process.stdin, flush=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps it; nobody waits for that
            self._process.wait(ENDING_SECONDS)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith(worker.MARK):
                self._answers.put(json.loads(line.removeprefix(worker.MARK)))
        self._answers.put(None)

    def answer(self, seconds: float) -> dict[str, Any] | Found:
        """Return the next answer, or the error that stands for it."""
        try:
            found = self._answers.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return Found(error=f"given up after {seconds:.0f} s")
        if found is not None:
            return found
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return Found(error=f"the process ended with code {self._process.wait()}", log=lines[-ERROR_LINES:])


def measure(parts: Sequence[Part], setting: Setting, report: Report, publish: Callable[[str], None]) -> None:
    """Measure all parts into the report; publish(what is new) whenever it has grown."""
    report.parts = list(parts)

    def add(part: Part, row: Row, engine: str, found: Found) -> None:
        report.found[part.name, row.name, engine] = found
        publish(report.news(part, row, engine))

    for part in parts:
        _measure_part(part, setting, report, partial(add, part))


def _measure_part(part: Part, setting: Setting, report: Report, add: Callable[[Row, str, Found], None]) -> None:
    """Measure a part's rows by both engines.

    A process that ends or hangs costs its row, and another goes on with the next one.
    """
    jobs = deque((row, engine) for row in part.rows for engine in ENGINES)
    while jobs and setting.left() > 0:
        orders = {"options": [*part.options, *(["--cpu"] if setting.on_cpu else [])], "held_gib": part.held_gib,
                  "scratch": str(setting.scratch), "small": setting.small, "describe": not report.facts,
                  "jobs": [(asdict(row), engine) for row, engine in jobs]}
        with Worker(setting, orders) as process:
            hello = process.answer(min(ROW_SECONDS, setting.left()))
            if isinstance(hello, Found):
                for row, engine in jobs:
                    add(row, engine, hello)
                return
            report.facts = report.facts or hello["facts"]
            last = False
            while jobs and not last:
                found = process.answer(min(ROW_SECONDS, setting.left()))
                if isinstance(found, Found) and setting.left() <= 0:
                    return
                last = isinstance(found, Found) or found.pop("last")
                add(*jobs.popleft(), found if isinstance(found, Found) else Found(**found))


def scratch_folder(small: bool, chosen: Path | None) -> Path:
    """Return the folder to make the weights in: in RAM where that is ample, else where temporary files go.

    Raises DevError where not even one expert fits.
    """
    import psutil

    need = (SMALL if small else FULL).scratch_gb * 1e9
    ample = psutil.virtual_memory().available > 2 * need + SPARE_MEMORY
    if chosen is None and ample and MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > need:
        return MEMORY_DISK
    place = chosen or Path(tempfile.gettempdir())
    if not place.is_dir() or shutil.disk_usage(place).free < need / 2 + SPARE_DISK:
        raise DevError(f"The random weights need {need / 1e9:.1f} GB, or half of that with one file for both experts, "
                       f"and {SPARE_DISK / 1e9:.0f} GB besides. Name a folder with room for them: --scratch FOLDER.")
    return place
