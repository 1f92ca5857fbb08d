"""Hundreds of clips: how fast batches run beside ComfyUI's own lists, and what is lost when things are killed.

    python bench/batch.py speed              clips an hour: one server, two, a Ray cluster, one run over a list
    python bench/batch.py kills              24 clips; a server and twice the program killed; a node of Ray killed
    python bench/batch.py many --clips 1000 --frames 5        memory and journal of a long batch

Every server has one thread, so that two of them have a core each. What needs Ray is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from devtools.environment import local_comfyui  # noqa: E402
from devtools.paths import DEMO_WORKFLOW, SAMPLE_PICTURES  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PROGRAM = ROOT / "workflows" / "run_batch.py"
MEMORY_SECONDS = 2.0
LIST_INPUTS = 10
"""Inputs of ComfyUI's Create List."""


@contextlib.contextmanager
def servers(folder: Path, count: int) -> Iterator[list[ComfyServer]]:
    """Start servers that share nothing, on the CPU."""
    with contextlib.ExitStack() as stack:
        started = []
        for number in range(count):
            base = Path(tempfile.mkdtemp(prefix=f"server-{number}-", dir=folder))
            server = ComfyServer(local_comfyui(), base, base / "server.log")
            server.options.append("--cpu")
            server.environ.update(ONE_THREAD)
            started.append(stack.enter_context(server))
        yield started


@contextlib.contextmanager
def ray_cluster(folder: Path, nodes: int) -> Iterator[tuple[object, list[str]]]:
    """Start a Ray cluster on this machine: a head without CPUs, and nodes of one, and the options for it."""
    from ray.cluster_utils import Cluster

    base = Path(tempfile.mkdtemp(prefix="ray-", dir=folder))
    for name in ("custom_nodes", "models", "user"):
        (base / name).mkdir()
    words = [*ComfyServer(local_comfyui(), base, base / "log").command(), "--cpu"]
    place = words.index("--listen")
    small = {"object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, env_vars=ONE_THREAD, **small)
        cluster.wait_for_nodes()
        yield cluster, ["--ray", cluster.address, "--workers", str(nodes), "--gpus", "0", "--comfyui",
                        shlex.join(words[:place] + words[place + 4:])]
    finally:
        cluster.shutdown()


def at(servers: list[ComfyServer]) -> list[str]:
    """Return the program's options for some servers."""
    return [word for server in servers for word in ("--server", server.url)]


class Program:
    """run_batch.py over pictures of a folder, into a folder of results."""

    def __init__(self, folder: Path, clips: int, frames: int, steps: int) -> None:
        self.pictures, self.frames, self.steps = folder / "pictures", frames, steps
        self.pictures.mkdir()
        samples = sorted(path for path in SAMPLE_PICTURES.iterdir() if path.suffix in (".png", ".jpg"))
        for number in range(clips):
            with Image.open(samples[number % len(samples)]) as picture:
                turned = picture.convert("RGB").resize((128, 128)).rotate(number / 4, Image.Resampling.BICUBIC)
                turned.save(self.pictures / f"{number:04}.png")

    def start(self, out: Path, where: list[str]) -> subprocess.Popen:
        words = ["everything turns blue", "--set", f"Wan22FirstFrame.num_frames={self.frames}", "--set",
                 f"Wan22Sampler.num_inference_steps={self.steps}", "--out", str(out), *where]
        log = out.with_suffix(".log").open("ab")
        return subprocess.Popen([sys.executable, str(PROGRAM), str(self.pictures), *words], stdout=log, stderr=log)

    def run(self, out: Path, where: list[str]) -> tuple[float, float]:
        """Run to the end; return seconds to the first clip, and to the last."""
        begun = time.time()
        if self.start(out, where).wait():
            sys.exit(out.with_suffix(".log").read_text())
        times = [event["time"] - begun for event in events(out) if event["event"] == "done"]
        return min(times), max(times)


def events(out: Path) -> list[dict]:
    """Return the journal's whole lines."""
    path = out / "journal.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.is_file() else []


def wait_for_clips(out: Path, count: int) -> None:
    while sum(event["event"] == "done" for event in events(out)) < count:
        time.sleep(0.05)


def clips_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.mp4"))}


def verdict(reference: Path, out: Path) -> str:
    """Say whether a folder holds what another does, and each id once in its journal."""
    done = Counter(event["id"] for event in events(out) if event["event"] == "done")
    same = sum(data == clips_of(out).get(name) for name, data in clips_of(reference).items())
    others = [event["error"] for event in events(out) if event["event"] in ("failed", "set aside")]
    return (f"{len(clips_of(out))} clips, {same} of {len(clips_of(reference))} equal to the one-server run; ids in the "
            f"journal: {len(done)}, more than once: {sum(times > 1 for times in done.values())}; errors: {others}")


def list_run(server: ComfyServer, program: Program) -> tuple[float, float]:
    """Make the same clips by one run over a list of pictures; return seconds to the first file, and to the last."""
    graph = json.loads(DEMO_WORKFLOW.read_text("utf-8"))
    graph["3"]["inputs"]["prompt"] = "everything turns blue"
    graph["4"]["inputs"]["num_frames"] = program.frames
    graph["5"]["inputs"]["num_inference_steps"] = program.steps
    names = [server.upload_picture(path) for path in sorted(program.pictures.iterdir())]
    graph |= {f"picture {n}": {"class_type": "LoadImage", "inputs": {"image": name}} for n, name in enumerate(names)}
    links = [f"picture {n}" for n in range(len(names))]
    while len(links) > 1:  # lists of lists: one takes so many
        groups = {f"list of {links[n]}": links[n : n + LIST_INPUTS] for n in range(0, len(links), LIST_INPUTS)}
        graph |= {name: {"class_type": "CreateList", "inputs": {
            f"inputs.input{n}": [link, 0] for n, link in enumerate(group)}} for name, group in groups.items()}
        links = list(groups)
    graph["4"]["inputs"]["image"] = [links[0], 0]
    begun, first = time.monotonic(), 0.0
    job = json.loads(server.request("/prompt", json.dumps({"prompt": graph}).encode()))["prompt_id"]
    while job not in json.loads(server.request(f"/history/{job}")):
        first = first or (time.monotonic() - begun if any(server.base.glob("output/**/*.mp4")) else 0.0)
        time.sleep(0.05)
    assert len(list(server.base.glob("output/**/*.mp4"))) == len(names)
    return first, time.monotonic() - begun


def speed(folder: Path, program: Program, clips: int) -> None:
    print("| made by | clips an hour | first clip after | all after |\n|---|---|---|---|")

    def row(name: str, first: float, last: float) -> None:
        print(f"| {name} | {3600 * clips / last:.0f} | {first:.1f} s | {last:.1f} s |", flush=True)

    with servers(folder, 1) as one:
        program.run(folder / "warm", at(one))  # models in memory, as in every other row but Ray's
        row("run_batch.py, one server", *program.run(folder / "one", at(one)))
    with servers(folder, 1) as one:
        program.run(folder / "warm list", at(one))
        for path in one[0].base.glob("output/**/*.mp4"):
            path.unlink()
        row("one run over ComfyUI's list", *list_run(one[0], program))
    with servers(folder, 2) as two:
        program.run(folder / "warm two", at(two))
        row("run_batch.py, two servers", *program.run(folder / "two", at(two)))
    if has_ray():
        with ray_cluster(folder, 2) as (_, where):
            begun = time.time()
            first, last = program.run(folder / "ray", where)
            job = min(event["time"] for event in events(folder / "ray")) - begun
            row(f"run_batch.py, Ray with two nodes ({job:.0f} s to start actors and ComfyUIs not counted)",
                first - job, last - job)


def kills(folder: Path, program: Program, clips: int) -> None:
    with servers(folder, 1) as one:
        program.run(folder / "one", at(one))
    with servers(folder, 2) as two:
        where, out = at(two), folder / "two"
        for share in (0.25, 0.5):
            running = program.start(out, where)
            wait_for_clips(out, int(share * clips))
            running.kill()
            running.wait()
            print(f"the program was killed after {sum(e['event'] == 'done' for e in events(out))} clips")
        running = program.start(out, where)
        wait_for_clips(out, int(0.6 * clips))
        two[1]._process.send_signal(signal.SIGKILL)
        print("a server was killed")
        running.wait()
    print("two servers:", verdict(folder / "one", out), flush=True)
    if has_ray():
        with ray_cluster(folder, 2) as (cluster, where):
            out = folder / "ray"
            running = program.start(out, where)
            wait_for_clips(out, int(0.4 * clips))
            cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)
            running.wait()
        print("Ray, one of two nodes killed:", verdict(folder / "one", out))


def many(folder: Path, program: Program, clips: int) -> None:
    """Print memory of the program and of the server over the length of a batch."""
    with servers(folder, 1) as one:
        begun, out = time.time(), folder / "many"
        running = program.start(out, at(one))
        watched = [psutil.Process(running.pid), psutil.Process(one[0]._process.pid)]
        told = 0
        print("| clips | seconds | program MiB | server MiB |\n|---|---|---|---|")
        while running.poll() is None:
            made = sum(event["event"] == "done" for event in events(out))
            if made >= told:
                sizes = [process.memory_info().rss >> 20 for process in watched]
                print(f"| {made} | {time.time() - begun:.0f} | {sizes[0]} | {sizes[1]} |", flush=True)
                told += max(1, clips // 10)
            time.sleep(MEMORY_SECONDS)
        if running.returncode:
            sys.exit(out.with_suffix(".log").read_text())
    done = Counter(event["id"] for event in events(out) if event["event"] == "done")
    print(f"{len(clips_of(out))} clips; ids in the journal: {len(done)}, more than once: "
          f"{sum(times > 1 for times in done.values())}; {(out / 'journal.jsonl').stat().st_size >> 10} KiB of journal")


def has_ray() -> bool:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: F401
    except ImportError:
        print("ray is not installed: left out")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ways = {"speed": speed, "kills": kills, "many": many}
    parser.add_argument("way", choices=ways)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wan22-batch-") as folder:
        program = Program(Path(folder), options.clips, options.frames, options.steps)
        ways[options.way](Path(folder), program, options.clips)


if __name__ == "__main__":
    main()
