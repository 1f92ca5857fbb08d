"""Kill ComfyUI with SIGKILL at random moments of remote jobs, again and again: is any clip lost, or bought twice?

    python bench/remote_crash.py --kills 100 --seed 1

Every life of the server runs a graph with one remote node per provider against the loopback servers of tests/support,
until it is killed; the next life queues what the last one left unfinished. In turns the graph asks for plain clips, for
clips that end with a picture, and for chains of three. Each life meets other trouble (remote_weather.py), and one in
four is stopped before it is killed. At the end everything is run to its end without a kill. Where a provider keeps no
history, a job whose submit had no answer is left to the user, by design: the script then looks at the provider's own
list, as a user would on its site, and resumes the job or gives it up.
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

from bench.remote_weather import Weather, billed, counts_as_bought  # noqa: E402
from devtools.environment import local_comfyui  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402
from pipeline.remote.job import JobState  # noqa: E402
from pipeline.remote.ledger import Ledger  # noqa: E402
from pipeline.remote.providers import PROVIDERS  # noqa: E402
from tests.support.comfy_launcher import put_on_loopback  # noqa: E402
from tests.support.providers.provider_server import ProviderServer  # noqa: E402
from tests.support.runner import OWN, SERVERS  # noqa: E402

PACE = 0.1
"""Of the schedule of polls: 2 s become 0.2 s."""
UNKNOWN = "It is not known whether"
"""Beginning of the message of an unknown submit, but for the name of a segment before it."""
OVER = ("could not make the clip of", "cancelled the job", "lost the job")
"""In the message of a job that its provider ended without a clip: the next run buys it anew."""
SEGMENTS = 2
TRIES = 6
"""Runs after which a graph is left for the end: where a list has ended jobs alone, a lost answer is looked for longer
than a life lasts."""
PLAIN, ENDING, CHAIN = KINDS = range(3)


def kind_of(number: int) -> int:
    """Return what a graph asks for, by its number."""
    return KINDS[number % len(KINDS)]


def seeds_of(number: int) -> list[int]:
    """Return the seeds of the clips that a graph buys at each provider."""
    return [10 * number + clip for clip in range(1 + SEGMENTS if kind_of(number) == CHAIN else 1)]


def graph(number: int) -> dict:
    """One remote node per provider, and its report."""
    first, *rest = seeds_of(number)
    nodes: dict = {"picture": {"class_type": "LoadImage", "inputs": {"image": "still.png"}}}
    more: dict = {}
    for seed in rest:
        before = {"segments": [f"segment {seed - 1}", 0]} if more else {}
        nodes[f"segment {seed}"] = {"class_type": "Wan22Segment", "inputs": {
            "prompt": "the camera goes on", "seed": seed, "num_frames": 81, **before}}
        more = {"segments": [f"segment {seed}", 0]}
    for name, provider in PROVIDERS.items():
        if kind_of(number) == ENDING and provider.models[0].last_image:
            more = {"last_image": ["picture", 0]}
        nodes[name] = {"class_type": "Wan22RemoteImageToVideo", "inputs": {
            "image": ["picture", 0], "provider": provider.title, "provider.model": provider.models[0].id,
            "prompt": "the camera pans left", "resolution": "480p", "num_frames": 81, "num_inference_steps": 30,
            "guidance_scale": 5.0, "seed": first, **more}}
        nodes[f"{name} report"] = {"class_type": "PreviewAny", "inputs": {"source": [name, 2]}}
        more = more if kind_of(number) == CHAIN else {}
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

    def stop_run(self) -> None:
        """Press Stop."""
        self.server.request("/interrupt", b"{}")

    def kill(self) -> None:
        os.kill(self.server._process.pid, signal.SIGKILL)
        self.server._process.wait()


def states(base: Path) -> Counter[str]:
    """Return the states of the ledger's jobs."""
    return Counter(f"{job.state.value}{', sent' if job.state == JobState.SUBMITTING and job.sent else ''}"
                   for job in Ledger(base / "user" / "__wan22").jobs())


def message_of(entry: dict) -> str:
    return next((data.get("exception_message", "") for kind, data in entry["status"]["messages"]
                 if kind == "execution_error"), "")


def reports(entry: dict) -> dict[str, dict]:
    return {name.removesuffix(" report"): json.loads(shown["text"][0])
            for name, shown in entry["outputs"].items() if name.endswith(" report")}


def settle(life: Life, workflow: dict, base: Path, providers: dict[str, ProviderServer], asked: Counter[str]) -> dict:
    """Run a graph to its end; stands in for the user where a job's submit had no answer, or a job failed there."""
    while True:
        run = life.queue(workflow)
        while (entry := life.ended(run)) is None:
            time.sleep(0.05)
        said = message_of(entry)
        if not said:
            return reports(entry)
        if any(words in said for words in OVER):
            asked["run again after a job that failed"] += 1
        elif UNKNOWN in said:
            decide(life, said, base, providers, asked)
        else:
            raise SystemExit(f"a run failed: {said}")


def decide(life: Life, said: str, base: Path, providers: dict[str, ProviderServer], asked: Counter[str]) -> None:
    """Resume a job of unknown outcome by the id on its provider's site, or give it up when it is not there."""
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


def files_of(report: dict) -> list[str]:
    """Return the names of the files that a report tells of."""
    return [report["file"], *(part["file"] for part in report.get("segments", ()))]


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
        weather: dict[str, Weather] = {}
        for name, kind in SERVERS.items():
            (folder / name).mkdir()
            providers[name] = stack.enter_context(closing(kind(folder / name)))
            weather[name] = Weather(providers[name], random.Random(f"{args.seed} {name}"))
        base = folder / "comfyui"
        (base / "input").mkdir(parents=True)
        Image.fromarray(np.full((64, 96, 3), 120, np.uint8)).save(base / "input" / "still.png")
        first, *others = providers.values()
        hosts = json.dumps(json.loads(first.environment(*others)) | {"pace": PACE})
        keys = {PROVIDERS[name].variables[0]: provider.key for name, provider in providers.items()}
        keys["WAN22_OWN_SERVER"] = providers[OWN].address

        hit: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        graphs, stops, below = 0, 0, 0.0
        unfinished: list[int] = []
        tried: Counter[int] = Counter()
        end, kills = time.monotonic() + 60 * args.minutes, 0
        while kills < args.kills and time.monotonic() < end:
            kills += 1
            for one in weather.values():
                one.change()
            life = Life(base, hosts, keys)
            moment = time.monotonic() + dice.uniform(0.1, 8.0)
            stop_at = moment - dice.uniform(0.2, 2.0) if dice.random() < 0.25 else None
            try:
                while time.monotonic() < moment:
                    number = next((one for one in unfinished if tried[one] < TRIES), None)
                    if number is None:
                        graphs += 1
                        number = graphs
                        unfinished.append(number)
                    tried[number] += 1
                    run = life.queue(graph(number))
                    while (entry := life.ended(run)) is None and time.monotonic() < moment:
                        if stop_at is not None and time.monotonic() > stop_at:
                            life.stop_run()
                            stops, stop_at = stops + 1, None
                        time.sleep(0.02)
                    if entry is not None and entry["status"]["status_str"] == "success":
                        unfinished.remove(number)
                    elif entry is not None and UNKNOWN in message_of(entry):
                        decide(life, message_of(entry), base, providers, asked)
            finally:
                life.kill()
            found = states(base)
            hit.update(state for state in found if state not in ("done", "failed", "canceled"))
            owed = sum(billed(server, job) for server in providers.values() for job in server.jobs.values())
            below = max(below, owed - Ledger(base / "user" / "__wan22").spent())
            print(f"kill {kills}: {dict(found)}", flush=True)

        for one in weather.values():
            one.calm()
        life = Life(base, hosts, keys)
        try:
            delivered = {(number, name): report for number in range(1, graphs + 1)
                         for name, report in settle(life, graph(number), base, providers, asked).items()}
        finally:
            life.server.stop()
        results = base / "output" / "wan22" / "remote"
        wanted = [(number, name) for number in range(1, graphs + 1) for name in SERVERS]
        missing = [key for key in wanted if key not in delivered
                   or not all((results / file).is_file() for file in files_of(delivered[key]))]
        twice = {name: [seed for seed, count in Counter(
            job.inputs["seed"] for job in provider.jobs.values() if counts_as_bought(job)).items() if count > 1]
            for name, provider in providers.items()}
        violations = [text for provider in providers.values() for text in (*provider.violations,
                                                                           *provider.cdn.violations)]
        owed = {name: round(sum(billed(server, job) for job in server.jobs.values()), 3)
                for name, server in providers.items()}
        below = max(below, sum(owed.values()) - Ledger(base / "user" / "__wan22").spent())
        drawn = sum((one.seen for one in weather.values()), Counter())
        result = {"kills": kills, "stops": stops, "seed": args.seed, "runs wanted": len(wanted),
                  "clips": sum(len(files_of(report)) - ("segments" in report) for report in delivered.values()),
                  "missing": missing, "bought": {name: provider.accepted for name, provider in providers.items()},
                  "bought twice": twice, "violations": violations, "owed, US dollars": owed,
                  "most by which spent was below what is owed": round(below, 3),
                  "kills that met a job in state": dict(hit), "trouble": dict(drawn), "left to the user": dict(asked)}
        print(json.dumps(result, indent=1))
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
        if missing or any(twice.values()) or violations or below > 1e-6:
            raise SystemExit("a clip was lost, or bought twice, or money was not counted")


if __name__ == "__main__":
    main()
