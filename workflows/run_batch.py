#!/usr/bin/env python3
"""Make hundreds of clips, on one or several running ComfyUIs.

    python3 run_batch.py photos "the camera zooms in" --out clips
    python3 run_batch.py shots.csv --workflow api/loras-by-link.json --set Wan22Sampler.num_inference_steps=4 \\
        --server 127.0.0.1:8188 --server 127.0.0.1:8189 --out clips
    python3 run_batch.py shots.csv --ray --comfyui "python /opt/ComfyUI/main.py" --out s3://bucket/clips \\
        --journal shots.journal.jsonl

The manifest is a folder of pictures, a CSV or a JSONL with the columns picture, prompt, negative_prompt, seed, lora, or
any NODE.INPUT. Interrupted, the same command goes on. docs/scale.md tells more. Needs Python 3.10, aiohttp and tqdm,
which ComfyUI's Python has; --ray needs ray, and an --out such as s3:// needs fsspec.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

try:
    import tqdm  # noqa: F401
    from run_headless import WORKFLOW, ClipError, address, read_workflow
except ImportError as error:
    sys.exit(f"This needs the package {error.name}. Run it with ComfyUI's own Python, or: pip install aiohttp tqdm")

from batch.journal import Journal
from batch.manifest import Item, read_items
from batch.results import results_at
from batch.run import Batch
from batch.workers import ServerWorker, with_reports


@contextlib.asynccontextmanager
async def servers(addresses: Sequence[str]) -> AsyncIterator[list[ServerWorker]]:
    workers = [ServerWorker(address) for address in dict.fromkeys(addresses)]
    try:
        yield workers
    finally:
        for worker in workers:
            await worker.close()


async def run(batch: Batch, options: argparse.Namespace) -> None:
    """Make what is missing; leave contact sheet and table behind, however it ends."""
    if options.ray is None:
        opened = servers(options.server or ["http://127.0.0.1:8188"])
    else:
        from batch.ray_workers import actors

        opened = actors(options.ray, options.comfyui, options.workers, options.gpus)
    async with opened as workers:
        try:
            await batch.run(workers)
        except BaseException:
            with contextlib.suppress(OSError):  # of a disk that is full, which is told by the first error
                batch.write_sheet()
            raise
        batch.write_sheet()


def count(text: str) -> int:
    """Return a number of at least 1. Raises ArgumentTypeError."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")


def folder(text: str) -> str:
    """Return a path that no file has. Raises ArgumentTypeError."""
    if Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder for the clips")
    return text


def shared_columns(options: argparse.Namespace) -> dict[str, str]:
    """Return the columns that the command line gives to every row."""
    columns = {} if options.prompt is None else {"prompt": options.prompt}
    for setting in options.set:
        place, equals, text = setting.partition("=")
        if not equals:
            raise ClipError(f"--set {setting}: write it as NODE.INPUT=VALUE")
        columns[place] = text
    return columns


def tell_of_earlier_runs(journal: Journal, items: Sequence[Item]) -> None:
    """Say which clips of the folder are of rows that the manifest no longer has: it was edited."""
    gone = len(journal.done.keys() - {item.id for item in items})
    if gone:
        print(f"{gone} clips that are there belong to rows that were changed or removed since. They stay there, and are"
              " not in the new table.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a folder of pictures, a .csv or a .jsonl")
    parser.add_argument("prompt", nargs="?", help="of rows without one (default: the workflow's own)")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="in API format (default: the bundled model's)")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="may be repeated")
    parser.add_argument("--seeds", type=count, default=1, metavar="N", help="clips of each row, with N seeds in a row")
    parser.add_argument("--retries", type=int, default=2, metavar="N",
                        help="new seeds for a clip that the workflow's Check Clip does not pass (default: 2)")
    parser.add_argument("--out", type=folder, required=True, metavar="FOLDER",
                        help="or a path of fsspec, such as s3://bucket/clips")
    parser.add_argument("--journal", type=Path, metavar="FILE", help="default: journal.jsonl in the folder")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", type=address, action="append", help="may be repeated (default: 127.0.0.1:8188)")
    where.add_argument("--ray", nargs="?", const="", metavar="ADDRESS",
                       help="start a ComfyUI on each GPU of a Ray cluster (default: the one of this machine)")
    parser.add_argument("--comfyui", metavar="COMMAND", help="with --ray: starts ComfyUI on a node, without a port")
    parser.add_argument("--workers", type=count, metavar="N", help="with --ray: ComfyUIs (default: one for each GPU)")
    parser.add_argument("--gpus", type=float, default=1, metavar="N", help="with --ray: GPUs of each; 0 for the CPU")
    options = parser.parse_args()
    if options.ray is not None and not options.comfyui:
        parser.error('--ray needs --comfyui, such as --comfyui "python /opt/ComfyUI/main.py"')
    if options.retries < 0 or options.gpus < 0:
        parser.error("--retries and --gpus are 0 or more")
    if "://" in options.out and not options.journal:
        parser.error(f"--out {options.out} is not on this machine: say with --journal where the journal goes")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        workflow = with_reports(read_workflow(options.workflow))
        items = read_items(options.manifest, workflow, shared_columns(options), options.seeds)
        journal = Journal(options.journal or Path(options.out) / "journal.jsonl")
        tell_of_earlier_runs(journal, items)
        batch = Batch(items, workflow, journal, results_at(options.out), title=options.manifest.name,
                      retries=options.retries)
        asyncio.run(run(batch, options))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on from here.")
    except ClipError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror or error}. Nothing is lost: the same command goes on from here.")
    print(f"{len(items) - batch.failures} clips, {batch.failures} set aside: {options.out}/index.html")
    sys.exit(1 if batch.failures else 0)


if __name__ == "__main__":
    main()
