"""Print texts, the progress and the end of a log to a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path


class DevError(Exception):
    """Something the person at the keyboard can act on; printed without a traceback."""


def say(text: str) -> None:
    print(text, flush=True)


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, and where the rest is."""
    text = re.sub(r"\x1b\[[\d;]*m", "", log.read_text("utf-8", errors="replace")) if log.is_file() else ""
    last = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join([*(f"  | {line}" for line in last), f"The whole log: {log}"])


class ProgressBar:
    """One line that moves on a terminal; elsewhere (a file, a CI log) a new line for every tenth."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.tenths = -1

    def show(self, fraction: float, label: str) -> None:
        percent = int(100 * fraction)
        if self.live:
            columns = shutil.get_terminal_size().columns - 1
            line = f"[{'#' * (percent * 30 // 100):<30}] {percent:3d} %  {label}"
            print("\r" + line[:columns].ljust(columns), end="", flush=True)
        elif percent // 10 > self.tenths:
            self.tenths = percent // 10
            say(f"{percent:3d} %  {label}")

    def end(self) -> None:
        if self.live:
            say("")
