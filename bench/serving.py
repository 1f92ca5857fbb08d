"""The API on a real ComfyUI with the bundled model: generated requests, 100 clips at once, kills at random moments.

    python bench/serving.py fuzz --cases 5000       # schemathesis against openapi.json, with and without a right key
    python bench/serving.py crowd --clips 100       # all at one time: memory, order, delivery
    python bench/serving.py kills --kills 50        # SIGKILL at random moments: is a clip lost, or made twice?
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from devtools.environment import local_comfyui  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402
from devtools.terminal import DevError  # noqa: E402
from pipeline.remote.keys import CALLBACK_VARIABLE  # noqa: E402
from pipeline.serve.operations import BASE  # noqa: E402
from tests.support.comfy_launcher import put_on_loopback  # noqa: E402
from tests.support.hook_server import HOST, HookServer  # noqa: E402

KEY = "bench-" + "0123456789" * 2
HEADERS = {"Authorization": f"Bearer {KEY}"}
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,ignored_auth,use_after_free,ensure_resource_availability")


def new_server(base: Path, hook: HookServer) -> ComfyServer:
    """Return a ComfyUI with the API on, without limits on requests, whose internet is the receiver of callbacks."""
    server = ComfyServer(local_comfyui(), base, base / "server.log")
    put_on_loopback(server, json.dumps(json.loads(hook.environment()) | {"pace": 0.02}))
    server.environ |= {"WAN22_API": "1", "WAN22_API_KEY": KEY, CALLBACK_VARIABLE: hook.secret,
                       "WAN22_API_PER_MINUTE": "100000", "WAN22_API_QUEUE": "10000"}
    return server


def picture() -> str:
    """Return a small picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 120, np.uint8)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def ask(server: ComfyServer, method: str, path: str, **more: Any) -> requests.Response:
    """Return an answer of the API, which must be good."""
    answer = requests.request(method, server.url + BASE + path, headers=HEADERS | more.pop("headers", {}),
                              timeout=60, **more)
    if not answer.ok:
        raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
    return answer


def clip(number: int) -> dict[str, Any]:
    """Return the request of one small clip, 5 frames."""
    return {"image": picture(), "prompt": "everything turns blue", "num_frames": 5, "resolution": "64x64",
            "num_inference_steps": 2, "seed": number, "callback_url": f"https://{HOST}/{number}"}


def all_predictions(server: ComfyServer) -> list[dict[str, Any]]:
    """Return every prediction, the oldest first."""
    found, before = [], {}
    while True:
        page = ask(server, "GET", "/predictions", params={"limit": "100", **before}).json()
        found += page["predictions"]
        if page["next"] is None:
            return found[::-1]
        before = {"before": page["next"]}


def wait_for_all(server: ComfyServer, count: int) -> list[dict[str, Any]]:
    while True:
        found = all_predictions(server)
        if len(found) >= count and all(one["status"] not in ("queued", "running") for one in found):
            return found
        time.sleep(1)


# ---- generated requests ------------------------------------------------------------------------------------------


def fuzz(base: Path, hook: HookServer, options: argparse.Namespace) -> dict[str, Any]:
    """Run schemathesis until it has made so many cases."""
    done, failed, rounds = 0, 0, 0
    with new_server(base, hook) as server:
        while done < options.cases or rounds < 2:
            command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}{BASE}/openapi.json",
                       "--checks", CHECKS, "--max-examples", "100", "--seed", str(options.seed + rounds),
                       "--continue-on-failure", "--warnings", "off"]
            auth = ["-H", f"Authorization: Bearer {KEY if rounds % 2 == 0 else 'wrong-key-of-nobody'}"]
            run = subprocess.run(command + auth, capture_output=True, text=True, check=False, cwd=base)
            made = re.search(r"(\d[\d,]*) generated", run.stdout)
            if made is None:
                raise SystemExit(run.stdout[-3000:] + run.stderr[-3000:])
            done += int(made[1].replace(",", ""))
            failed += run.returncode != 0
            rounds += 1
            print(f"{done} cases; {'no failure' if run.returncode == 0 else run.stdout[-6000:]}", flush=True)
        log = server.log.read_text("utf-8", errors="replace")
    return {"cases": done, "rounds": rounds, "rounds with failures": failed, "tracebacks of the pack's routes":
            len(re.findall(r"Traceback[^\0]{0,4000}?nodes/routes/api", log))}


# ---- many at one time --------------------------------------------------------------------------------------------


def crowd(base: Path, hook: HookServer, options: argparse.Namespace) -> dict[str, Any]:
    """Ask for so many clips at one time, and watch the server's memory."""
    with new_server(base, hook) as server:
        process = psutil.Process(server._process.pid)
        ask(server, "POST", "/image-to-video", json=clip(0))
        wait_for_all(server, 1)
        memory = {"after the first clip": process.memory_info().rss}
        peak, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                peak[0] = max(peak[0], process.memory_info().rss)

        watching = threading.Thread(target=watch)
        watching.start()
        begun = time.monotonic()
        with ThreadPoolExecutor(options.clips) as pool:
            answers = list(pool.map(lambda number: ask(server, "POST", "/image-to-video", json=clip(number)),
                                    range(1, options.clips + 1)))
        taken = time.monotonic() - begun
        found = wait_for_all(server, options.clips + 1)[1:]
        seconds = time.monotonic() - begun
        while len(hook.told) < options.clips + 1:
            time.sleep(0.1)
        ended.set()
        watching.join()
        memory |= {"at most": peak[0], "after the last clip": process.memory_info().rss}
        places = [one["created_at"] for one in found]
        links = [requests.get(one["outputs"][0], timeout=60) for one in found]
        started = [one["started_at"] for one in found]
        return {"statuses of answers": Counter(answer.status_code for answer in answers),
                "statuses of clips": Counter(one["status"] for one in found),
                "in order": places == sorted(places) and started == sorted(started),
                "files by their links": sum(link.ok and link.content[4:8] == b"ftyp" for link in links),
                "told by callback": len({event["data"]["id"] for event in hook.told}) - 1,
                "seconds until all were accepted": round(taken, 1), "seconds in all": round(seconds, 1),
                "memory, MB": {name: round(size / 1e6) for name, size in memory.items()}}


# ---- kills -------------------------------------------------------------------------------------------------------


def kill_after(server: ComfyServer, seconds: float) -> None:
    """Kill the server's process, if it is still there."""
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()


def kills(base: Path, hook: HookServer, options: argparse.Namespace) -> dict[str, Any]:
    """Kill the server again and again while a client asks for clips, each under an Idempotency-Key of its own."""
    dice = random.Random(options.seed)
    clips: dict[str, tuple[int, int]] = {}
    hit: Counter[str] = Counter()
    wanted, answered, complaints = 0, {}, []

    def client(server: ComfyServer, stop: threading.Event) -> None:
        nonlocal wanted
        try:
            while not stop.is_set():
                number = next((one for one in range(1, wanted + 1) if one not in answered), None)
                if number is None:
                    wanted += 1
                    number = wanted
                answered[number] = ask(server, "POST", "/image-to-video", json=clip(number),
                                       headers={"Idempotency-Key": f"clip-{number}"}).json()["id"]
                stop.wait(dice.uniform(0.5, 2.5))
        except requests.RequestException:
            pass  # it was killed
        except SystemExit as error:
            complaints.append(str(error))

    def changed() -> list[str]:
        """Clips that are another file than when they were first seen."""
        found = {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns)
                 for path in (base / "output" / "wan22" / "api").glob("*/[!.]*.mp4")}
        again = [name for name, one in found.items() if clips.setdefault(name, one) != one]
        return again

    made_again: list[str] = []
    for kill in range(1, options.kills + 1):
        server = new_server(base, hook)
        stop = threading.Event()
        if dice.random() < 0.2:  # while it starts
            threading.Thread(target=kill_after, args=(server, dice.uniform(2.0, 12.0))).start()
        try:
            with server:
                asking = threading.Thread(target=client, args=(server, stop))
                asking.start()
                time.sleep(dice.uniform(0.0, 8.0))
                with suppress(requests.RequestException):
                    hit.update({one["status"] for one in all_predictions(server)})
                kill_after(server, 0.0)
                stop.set()
                asking.join()
        except DevError:
            hit["starting"] += 1
        made_again += changed()
        print(f"kill {kill}: {wanted} asked for, {len(clips)} made", flush=True)
    with new_server(base, hook) as server:
        for number in range(1, wanted + 1):
            answered[number] = ask(server, "POST", "/image-to-video", json=clip(number),
                                   headers={"Idempotency-Key": f"clip-{number}"}).json()["id"]
        found = wait_for_all(server, wanted)
        made_again += changed()
        while len({event["data"]["id"] for event in hook.told}) < wanted:
            time.sleep(0.1)
        files = [len(list(folder.glob("*.mp4"))) for folder in (base / "output" / "wan22" / "api").iterdir()]
        messages = Counter(event["data"]["id"] for event in {event["id"]: event for event in hook.told}.values())
        return {"kills": options.kills, "clips asked for": wanted, "predictions": len(found),
                "statuses": Counter(one["status"] for one in found), "lost": wanted - len(set(answered.values())),
                "files for each": Counter(files), "made again": len(made_again), "refused": complaints,
                "messages of the end, for each": Counter(messages.values()),
                "lives that met a status at the kill": hit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fuzz", "crowd", "kills"))
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        (Path(folder) / "comfyui").mkdir()
        (Path(folder) / "hook").mkdir()
        with closing(HookServer(Path(folder) / "hook")) as hook:
            work = {"fuzz": fuzz, "crowd": crowd, "kills": kills}[options.what]
            print(json.dumps(work(Path(folder) / "comfyui", hook, options), indent=1))
            if hook.violations:
                raise SystemExit(f"the receiver of callbacks complains: {hook.violations}")


if __name__ == "__main__":
    main()
