"""Run other programs: for their exit status alone, or as a logged step of the set-up."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from .paths import CACHE
from .terminal import DevError, say, tail

OPENMP = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For programs that run PyTorch: OpenMP's threads sleep while they wait for each other. They spin otherwise, and beside
one other busy thread on 2 cores the demo then takes 196 s in place of 27 s."""


def succeeds(command: Sequence[str], timeout: float | None = None) -> bool:
    """Return whether a command ends well. Its output goes nowhere: a pipe would outlive a timeout."""
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run(command, **quiet, env=environ, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def run_logged(command: Sequence[str], what: str) -> None:
    """Run a set-up step, its output into the set-up log; show only long downloads. Raises DevError when it fails."""
    log = CACHE / "setup.log"
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUTF8": "1"}
    with log.open("a", encoding="utf-8") as sink:
        sink.write(f"\n$ {subprocess.list2cmdline(command)}\n")
        sink.flush()
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        with subprocess.Popen(command, **streams, env=environ, encoding="utf-8", errors="replace") as step:
            try:
                for line in step.stdout or ():
                    sink.write(line)
                    big = re.match(r"\s*(Downloading|Using cached) (\S+) (\(\d{2,}\.?\d* MB\)|\([\d.]+ GB\))", line)
                    if big:
                        say(f"  {big[1].lower()} {big[2].rpartition('/')[2]} {big[3]}")
            except BaseException:  # asked to stop, and leaving the block would first wait for the step
                step.terminate()
                raise
    if step.returncode != 0:
        raise DevError(f"{what} failed. Run the same command again to go on from here.\n{tail(log)}")
