"""Run a command only as long as the program that started this one lives, however either of them ends.

    python keep.py COMMAND ...        with a pipe as stdin, which ends when the other program does

An actor of Ray may be killed, and so may this program: a ComfyUI that stays behind would keep its GPU's memory.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies. Of Linux alone."""


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL,
                               preexec_fn=die_with_parent if sys.platform == "linux" else None)

    def watch() -> None:
        os.read(0, 1)
        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
