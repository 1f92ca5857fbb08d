"""Print a table of quality for every clip in a folder, and its means.

usage: quality.py FOLDER [--json FILE]

The measures are those of Check Clip (pipeline/quality/), under names of their own: they need no network and no weights,
and are not VBench's, whose dimensions have similar names. Higher is better for smoothness, consistency and score, lower
for the others.

  smoothness   1 - what a frame differs from the mean of its neighbours, in differences of neighbours; median
  flicker      what the brightness of the median block differs from the mean of its neighbours, in 1/1000; median
  consistency  correlation of a frame with the one before, along the shift of the picture; mean
  drift        distance of the mean colours, first to last frame, in a*b* of the content that both show
  blur         factor by which fine detail is weaker in the last frame than in the first
  score        1 without a fault, 0.5 at a limit of Check Clip
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.quality.check import judge  # noqa: E402
from pipeline.quality.facts import gather  # noqa: E402
from pipeline.request import RequestError  # noqa: E402
from pipeline.video.source import file_source  # noqa: E402

KINDS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class Row:
    """The measures of a clip."""

    smoothness: float
    flicker: float
    consistency: float
    drift: float
    blur: float
    score: float


def measure(path: Path) -> tuple[Row, list[str]]:
    """Return a clip's measures, and the names of those that failed. Raises RequestError for a file that is no clip."""
    facts = gather(file_source(path, path.name).frames())
    verdict = judge(facts)
    likeness = statistics.mean(facts.likeness[1:]) if len(facts) > 1 else 1.0
    return Row(verdict.smoothness, 1000 * verdict.findings["flicker"].value, likeness, verdict.change.drift,
               verdict.change.blur, verdict.score), verdict.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [field.name for field in fields(Row)]
    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in KINDS)
    if not paths:
        sys.exit(f"There is no clip in {args.folder}. Give a folder of {', '.join(KINDS)}.")
    print(f"| clip | {' | '.join(names)} | failed |\n|{'---|' * (len(names) + 2)}")
    rows: dict[str, Row] = {}
    for path in paths:
        name = str(path.relative_to(args.folder))
        try:
            rows[name], failed = measure(path)
        except RequestError as error:
            print(f"| {name} | {error} |", flush=True)
            continue
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in asdict(rows[name]).values())} | "
              f"{', '.join(failed) or '-'} |", flush=True)
    if not rows:
        sys.exit("None of these can be read.")
    means = [statistics.mean(getattr(row, name) for row in rows.values()) for name in names]
    print(f"| mean of {len(rows)} | {' | '.join(f'{value:.3f}' for value in means)} | |")
    if args.json:
        args.json.write_text(json.dumps({name: asdict(row) for name, row in rows.items()}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
