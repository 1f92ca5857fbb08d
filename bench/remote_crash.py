"""Kill ComfyUI with SIGKILL at random moments of remote jobs, again and again: is any clip lost, or bought twice?

    python bench/remote_crash.py --kills 100 --seed 1

Every life of the server runs a graph with one remote node per provider against the loopback servers of tests/support,
until it is killed; the next life queues what the last one left unfinished. At the end everything is run to its end
without a kill. Where a provider keeps no history, a job whose submit had no answer is left to the user, by design: the
script then looks at the provider's own list, as a user would on its site, and resumes the job or gives it up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from devtools.environment import local_comfyui  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402
from pipeline.remote.job import JobState  # noqa: E402
from pipeline.remote.ledger import Ledger  # noqa: E402
from pipeline.remote.providers import PROVIDERS  # noqa: E402
from tests.support.comfy_launcher import put_on_loopback  # noqa: E402
from tests.support.faults import delay  # noqa: E402
from tests.support.providers.job import FOREVER, Script  # noqa: E402
from tests.support.providers.provider_server import ProviderServer  # noqa: E402
from tests.support.runner import SERVERS  # noqa: E402

PACE = 0.1
"""Of the schedule of polls: 2 s become 0.2 s."""
SLOWNESS = {"submit": 0.4, "upload": 0.1, "poll": 0.05}
"""Seconds that an answer takes, so that a kill can fall into the request."""
UNKNOWN = "Whether"
"""How the message of an unknown submit begins."""


def graph(seed: int) -> dict:
    """One remote node per provider, and its report."""
    nodes: dict = {"picture": {"class_type": "LoadImage", "inputs": {"image": "still.png"}}}
    for name, provider in PROVIDERS.items():
        nodes[name] = {"class_type": "Wan22RemoteImageToVideo", "inputs": {
            "image": ["picture", 0], "provider": provider.title, "provider.model": provider.models[0].id,
            "prompt": "the camera pans left", "resolution": "480p", "num_frames": 81, "num_inference_steps": 30,
            "guidance_scale": 5.0, "seed": seed}}
        nodes[f"{name} report"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 2]}}
    return nodes


class Life:
    """One life of the server."""

    def __init__(self, base: Path, hosts: str, keys: dict[str, str]) -> None:
        comfyui = local_comfyui()
        self.server = ComfyServer(comfyui, base, base / "server.log")
        self.server.environ |= keys
        put_on_loopback(self.server, hosts)
        self.server.__enter__()

    def queue(self, workflow: dict) -> str:
        body = json.dumps({"prompt": workflow}).encode()
        return json.loads(self.server.request("/prompt", body))["prompt_id"]

    def ended(self, run: str) -> dict | None:
        """The history's entry of a run that has ended, None while it goes on."""
        return json.loads(self.server.request(f"/history/{run}")).get(run)

    def kill(self) -> None:
        os.kill(self.server._process.pid, signal.SIGKILL)
        self.server._process.wait()


def states(base: Path) -> Counter[str]:
    """Where the ledger's jobs stand."""
    return Counter(f"{job.state.value}{', sent' if job.state == JobState.SUBMITTING and job.sent else ''}"
                   for job in Ledger(base / "user" / "__wan22").jobs())


def message_of(entry: dict) -> str:
    return next((data.get("exception_message", "") for kind, data in entry["status"]["messages"]
                 if kind == "execution_error"), "")


def reports(entry: dict) -> dict[str, dict]:
    return {name.removesuffix(" report"): json.loads(shown["text"][0])
            for name, shown in entry["outputs"].items() if name.endswith(" report")}


def settle(life: Life, workflow: dict, base: Path, providers: dict[str, ProviderServer], asked: Counter[str]) -> dict:
    """Run a graph to its end; stands in for the user where a job's submit had no answer."""
    while True:
        run = life.queue(workflow)
        while (entry := life.ended(run)) is None:
            time.sleep(0.05)
        said = message_of(entry)
        if not said:
            return reports(entry)
        if not said.startswith(UNKNOWN):
            raise SystemExit(f"a run failed: {said}")
        short_id = said.partition("the job ")[2][:8]
        with closing(sqlite3.connect(base / "user" / "__wan22" / "jobs.sqlite")) as ledger:
            known = {row[0] for row in ledger.execute("SELECT remote_id FROM jobs")}
            provider, summary = ledger.execute("SELECT provider, summary FROM jobs WHERE id LIKE ?",
                                               (f"{short_id}%",)).fetchone()
        seed = json.loads(summary)["seed"]
        there = [job.id for job in providers[provider].jobs.values()
                 if job.inputs["seed"] == seed and job.id not in known]
        asked[f"{provider}: {'resumed' if there else 'given up'} by the user"] += 1
        choice = {"remote_id": there[0]} if there else {"action": "give up"}
        run = life.queue({"job": {"class_type": "Wan22ResumeRemoteClip", "inputs": {"job": short_id, **choice}},
                          "shown": {"class_type": "PreviewAny", "inputs": {"source": ["job", 2]}}})
        while life.ended(run) is None:
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end earlier, with fewer kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    dice = random.Random(args.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        providers: dict[str, ProviderServer] = {}
        for name, kind in SERVERS.items():
            (folder / name).mkdir()
            providers[name] = stack.enter_context(closing(kind(folder / name)))
            providers[name].script = Script(queued=1, running=1)
            for point, seconds in SLOWNESS.items():
                if point in providers[name].points:
                    providers[name].fail(point, delay(seconds), times=FOREVER)
            providers[name].cdn.fail("download", delay(0.4), times=FOREVER)
        base = folder / "comfyui"
        (base / "input").mkdir(parents=True)
        Image.fromarray(np.full((64, 96, 3), 120, np.uint8)).save(base / "input" / "still.png")
        first, *others = providers.values()
        hosts = json.dumps(json.loads(first.environment(*others)) | {"pace": PACE})
        keys = {PROVIDERS[name].variables[0]: provider.key for name, provider in providers.items()}

        hit: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        seeds = 0
        unfinished: list[int] = []
        end, kills = time.monotonic() + 60 * args.minutes, 0
        while kills < args.kills and time.monotonic() < end:
            kills += 1
            life = Life(base, hosts, keys)
            moment = time.monotonic() + dice.uniform(0.1, 6.0)
            seed = unfinished[0] if unfinished else None
            try:
                while time.monotonic() < moment:
                    if seed is None:
                        seeds += 1
                        seed = seeds
                        unfinished.append(seed)
                    run = life.queue(graph(seed))
                    while (entry := life.ended(run)) is None and time.monotonic() < moment:
                        time.sleep(0.02)
                    if entry is not None and not message_of(entry):
                        unfinished.remove(seed)
                    elif entry is not None:
                        settle(life, graph(seed), base, providers, asked)
                        unfinished.remove(seed)
                    seed = unfinished[0] if unfinished else None
            finally:
                life.kill()
            found = states(base)
            hit.update(state for state in found if state not in ("done", "failed", "canceled"))
            print(f"kill {kills}: {dict(found)}", flush=True)

        life = Life(base, hosts, keys)
        try:
            delivered = {(seed, name): report for seed in range(1, seeds + 1)
                         for name, report in settle(life, graph(seed), base, providers, asked).items()}
        finally:
            life.server.stop()
        results = base / "output" / "wan22" / "remote"
        wanted = [(seed, name) for seed in range(1, seeds + 1) for name in SERVERS]
        missing = [key for key in wanted
                   if key not in delivered or not (results / delivered[key]["file"]).is_file()]
        twice = {name: [seed for seed, count in Counter(job.inputs["seed"] for job in provider.jobs.values()).items()
                        if count > 1] for name, provider in providers.items()}
        violations = [text for provider in providers.values() for text in (*provider.violations,
                                                                           *provider.cdn.violations)]
        result = {"kills": kills, "seed": args.seed, "clips": len(delivered), "missing": missing,
                  "bought": {name: provider.accepted for name, provider in providers.items()}, "bought twice": twice,
                  "violations": violations, "kills that met a job in state": dict(hit), "left to the user": dict(asked)}
        print(json.dumps(result, indent=1))
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        if missing or any(twice.values()) or violations:
            raise SystemExit("a clip was lost, or bought twice")


if __name__ == "__main__":
    main()
