"""Measure what this pack adds to ComfyUI's start: the real server, started with and without it in turn.

    python3 dev.py test --collect-only -q   # once, so that everything is installed
    .venv/bin/python bench/startup_time.py [--rounds N] [--json]

A start is over when the server answers its first request. The pack is meant to add less than 150 ms.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from devtools.environment import prepare
from devtools.paths import ROOT
from devtools.server import ComfyServer, has_accelerator
from devtools.terminal import DevError

LIMIT = 0.150


def start_once(comfyui: Path, *, with_pack: bool) -> tuple[float, float | None]:
    """Return the seconds until the server answered, and those it says it spent on importing the pack."""
    with tempfile.TemporaryDirectory(prefix="wan22-bench-", ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        began = time.perf_counter()
        with ComfyServer(comfyui, base, base / "server.log", with_pack=with_pack) as server:
            seconds = time.perf_counter() - began
        log = server.log.read_text("utf-8", errors="replace")
    reported = re.search(rf"([\d.]+) seconds: {re.escape(str(ROOT))}\s*$", log, re.MULTILINE)
    return seconds, float(reported[1]) if reported else None


def measure(rounds: int) -> dict[str, object]:
    comfyui = prepare()
    has_accelerator()  # its answer is kept, so that the first start does not pay for it
    start_once(comfyui, with_pack=True)  # fills the disk cache and writes the .pyc files, for both
    times: dict[bool, list[float]] = {True: [], False: []}
    imports = []
    for number in range(rounds):
        # Which one goes first changes every round, so that a machine that gets busier favours neither.
        for with_pack in (True, False) if number % 2 else (False, True):
            seconds, reported = start_once(comfyui, with_pack=with_pack)
            times[with_pack].append(seconds)
            if with_pack:
                imports.append(reported)
    without, with_ = statistics.median(times[False]), statistics.median(times[True])
    return {
        "rounds": rounds,
        "without_pack_s": round(without, 3),
        "with_pack_s": round(with_, 3),
        "difference_s": round(with_ - without, 3),
        "limit_s": LIMIT,
        "import_reported_by_comfyui_s": imports,
        "all_without_pack_s": [round(seconds, 3) for seconds in times[False]],
        "all_with_pack_s": [round(seconds, 3) for seconds in times[True]],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="starts of each kind (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    try:
        result = measure(options.rounds)
    except DevError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"without the pack  {result['without_pack_s']:.3f} s  (median of {options.rounds})")
        print(f"with the pack     {result['with_pack_s']:.3f} s")
        print(f"difference        {1000 * result['difference_s']:+.0f} ms  (meant to stay under {1000 * LIMIT:.0f} ms)")
        print(f"ComfyUI itself reports these import times of the pack: {result['import_reported_by_comfyui_s']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
