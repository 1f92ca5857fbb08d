"""The process that measures one part: it starts ComfyUI's modules with the part's options and answers row by row.

It reads its orders as JSON from its input and prints an answer, a line of JSON behind MARK, for each; the programs that
it runs may print lines of their own. Only what needs no torch is imported before ComfyUI has started.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.gpu.plan import FULL, SMALL, Found, Row
from tests.support.comfy_in_process import start_comfyui

MARK = "@bench.gpu "
LOG_LINES, ERROR_LINES = 6, 14
"""Last lines of what was logged, and of a traceback, that an answer carries."""
TOLD = "loaded "
"""Beginning of ComfyUI's lines on what is on the device, which an answer carries beside warnings."""


class Lines(logging.Handler):
    """Keeps warnings, and what ComfyUI says of its memory."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        text = record.getMessage().strip()
        if record.levelno >= logging.WARNING or text.startswith(TOLD):
            self.lines += text.splitlines()[:1]

    def take(self) -> list[str]:
        """Return the last lines, each once, and forget them."""
        found, self.lines = list(dict.fromkeys(self.lines))[-LOG_LINES:], []
        return found


def answer(values: dict[str, Any]) -> None:
    """Print an answer."""
    print(MARK + json.dumps(values), flush=True)


def work(orders: dict[str, Any]) -> None:
    """Measure every row that the orders name, engine by engine.

    orders: `options` of ComfyUI, `held_gib`, `scratch`, `small`, `describe` and `jobs`, pairs of a row and an engine.
    After an error that leaves the device unusable, the answer says that it is the last.
    """
    start_comfyui(*orders["options"])
    import torch

    from bench.gpu import device
    from bench.gpu.measure import MEASURES, Bench

    log = Lines()
    logging.getLogger().addHandler(log)
    logging.getLogger().setLevel(logging.INFO)
    device.hold(orders["held_gib"])
    bench = Bench(Path(orders["scratch"]), SMALL if orders["small"] else FULL)
    answer({"facts": device.describe() if orders["describe"] else {}})
    with torch.inference_mode():  # as ComfyUI runs a graph
        for values, engine in orders["jobs"]:
            row = Row(**values)
            device.empty_device()
            log.take()
            try:
                found = MEASURES[row.measure](bench, row, engine)
                found.log = log.take()
            except Exception as error:
                found = failed(error, log.take())
            last = bool(found.error) and not is_usable(device.synchronize)
            answer({**asdict(found), "last": last})
            if last:
                break


def failed(error: Exception, lines: Iterable[str]) -> Found:
    """Return what a row gives that ended in an error: its first line, and the end of the traceback."""
    text = (str(error).strip() or "no message").splitlines()[0]
    trace = "".join(traceback.format_exception(error)).splitlines()
    return Found(error=f"{type(error).__name__}: {text}", log=[*lines, *trace[-ERROR_LINES:]])


def is_usable(synchronize: Callable[[], None]) -> bool:
    """Return whether the device still answers; after some errors it does not until the process has ended."""
    try:
        synchronize()
    except RuntimeError:
        return False
    return True


def main() -> None:
    """Do what the input orders."""
    work(json.loads(sys.stdin.readline()))
