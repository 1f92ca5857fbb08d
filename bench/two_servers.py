"""Two real ComfyUIs on this machine, the one as the other's provider: the same clip, and kills of either.

    python bench/two_servers.py same                  # is the clip that comes across the one that is made here?
    python bench/two_servers.py kills --kills 20      # SIGKILL of the one or the other: is a clip lost, or made twice?

The desk runs Remote Image to Video at `Another ComfyUI`; the box serves its API, with the bundled model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import requests
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from devtools.environment import local_comfyui  # noqa: E402
from devtools.server import ComfyServer, free_port  # noqa: E402
from pipeline.remote.ledger import Ledger  # noqa: E402
from pipeline.remote.providers import PROVIDERS  # noqa: E402
from pipeline.remote.providers.comfyui import API, AnotherComfyUI  # noqa: E402
from tests.support.comfy_launcher import put_on_loopback  # noqa: E402

KEY = "bench-" + "0123456789" * 2
PACE = 0.1
"""Of the desk's schedule of polls: 2 s become 0.2 s."""
LORA = "wan2.2_i2v_demo_drain_colours_high_noise.safetensors"
CLIP = {"prompt": "everything turns blue", "negative_prompt": "", "num_frames": 17, "num_inference_steps": 10,
        "guidance_scale": 1.0}
BUSY = ("queued", "running")


def new_box(base: Path, port: int) -> ComfyServer:
    """Return the ComfyUI that serves, not started."""
    server = ComfyServer(local_comfyui(), base / "box", base / "box.log", port=port)
    server.environ |= {"WAN22_API": "1", "WAN22_API_KEY": KEY, "WAN22_API_PER_MINUTE": "100000"}
    return server


def new_desk(base: Path, port: int) -> ComfyServer:
    """Return the ComfyUI that asks the box at that port, not started."""
    server = ComfyServer(local_comfyui(), base / "desk", base / "desk.log")
    put_on_loopback(server, json.dumps({"ca": None, "hosts": {}, "pace": PACE}))
    server.environ |= {"WAN22_OWN_SERVER": f"http://127.0.0.1:{port}", AnotherComfyUI.variables[0]: KEY}
    return server


def graph(seed: int, lora: bool = True) -> dict[str, Any]:
    """Return a workflow with one clip of the box, and its report."""
    provider = PROVIDERS[AnotherComfyUI.name]
    nodes: dict[str, Any] = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "still.png"}},
        "clip": {"class_type": "Wan22RemoteImageToVideo", "inputs": {
            "image": ["picture", 0], "provider": provider.title, "provider.model": provider.models[0].id,
            "resolution": "480p", "seed": seed, **CLIP}},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["clip", 2]}}}
    if lora:
        nodes["lora"] = {"class_type": "Wan22Lora", "inputs": {"source": LORA, "scale": 0.8, "expert": "auto"}}
        nodes["clip"]["inputs"]["loras"] = ["lora", 0]
    return nodes


def local_graph(seed: int) -> dict[str, Any]:
    """Return the workflow that makes the same clip where it is run."""
    nodes = json.loads((ROOT / "workflows" / "api" / "image-to-video-demo.json").read_text("utf-8"))
    by_type = {node["class_type"]: node["inputs"] for node in nodes.values()}
    by_type["LoadImage"]["image"] = "still.png"
    by_type["Wan22EncodePrompt"] |= {name: CLIP[name] for name in ("prompt", "negative_prompt")}
    by_type["Wan22FirstFrame"]["num_frames"] = CLIP["num_frames"]
    by_type["Wan22Sampler"] |= {"seed": seed, "num_inference_steps": CLIP["num_inference_steps"],
                                "guidance_scale": CLIP["guidance_scale"], "loras": ["lora", 0]}
    by_type["Wan22SaveMP4"]["metadata"] = "request only"
    return {**nodes, "lora": graph(seed)["lora"]}


def queue(server: ComfyServer, workflow: dict[str, Any]) -> str:
    return json.loads(server.request("/prompt", json.dumps({"prompt": workflow}).encode()))["prompt_id"]


def ended(server: ComfyServer, run: str) -> dict[str, Any] | None:
    """Return the history's entry of a run that has ended, None while it goes on."""
    return json.loads(server.request(f"/history/{run}")).get(run)


def finish(server: ComfyServer, workflow: dict[str, Any]) -> dict[str, Any]:
    """Run a workflow to its end; return its outputs."""
    run = queue(server, workflow)
    while (entry := ended(server, run)) is None:
        time.sleep(0.1)
    if entry["status"]["status_str"] != "success":
        raise SystemExit(f"a run failed: {entry['status']['messages'][-1]}")
    return entry["outputs"]


def predictions(box: ComfyServer) -> list[dict[str, Any]]:
    """Return every prediction of the box."""
    found, before = [], {}
    while True:
        page = requests.get(f"{box.url}{API}/predictions", params={"limit": "100", **before}, timeout=60,
                            headers={"Authorization": f"Bearer {KEY}"}).json()
        found += page["predictions"]
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def stream(path: Path) -> bytes:
    """Return the bytes of the H.264 stream, without the metadata beside it."""
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(video=0) if packet.size)


def same(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare a clip that came across with the one that the desk makes itself."""
    port = free_port()
    with new_box(base, port) as box, new_desk(base, port) as desk:
        begun = time.monotonic()
        report = json.loads(finish(desk, graph(options.seed))["report"]["text"][0])
        seconds = time.monotonic() - begun
        finish(desk, local_graph(options.seed))
        again = json.loads(finish(desk, graph(options.seed, lora=True))["report"]["text"][0])
        (made,) = predictions(box)
        across = base / "desk" / "output" / "wan22" / "remote" / report["file"]
        (served,) = (base / "box" / "output").rglob("*.mp4")
        (here,) = (path for path in (base / "desk" / "output").rglob("*.mp4") if path != across)
        marks = {name: hashlib.sha256(path.read_bytes()).hexdigest()
                 for name, path in (("across", across), ("box", served), ("desk", here))}
        first, second = decoded(across), decoded(here)
        return {"report": report, "the same request again": again["remote_id"] == made["id"],
                "loras": made["request"]["loras"], "seconds across": round(seconds, 1),
                "file as the box has it": marks["across"] == marks["box"],
                "file as the desk makes it, bit for bit": marks["across"] == marks["desk"],
                "its video stream, bit for bit": stream(across) == stream(here),
                "frames": first.shape, "frames the same": bool(np.array_equal(first, second))}


def kills(base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Kill the box or the desk at random moments; then run everything to its end."""
    dice, port = random.Random(options.seed), free_port()
    servers = {"box": new_box(base, port), "desk": new_desk(base, port)}
    for server in servers.values():
        server.__enter__()
    wanted, run, hit, killed = 1, None, Counter[str](), Counter[str]()
    for kill in range(1, options.kills + 1):
        end = time.monotonic() + dice.uniform(0.5, options.longest)
        while time.monotonic() < end:
            with suppress(OSError):
                run = run or queue(servers["desk"], graph(wanted))
                entry = ended(servers["desk"], run)
                if entry is not None:
                    wanted, run = wanted + (entry["status"]["status_str"] == "success"), None
            time.sleep(0.1)
        states = Counter(job.state.value for job in Ledger(base / "desk" / "user" / "__wan22").jobs())
        hit.update(state for state in states if state not in ("done", "failed", "canceled"))
        victim = dice.choice(("box", "desk"))
        killed[victim] += 1
        os.kill(servers[victim]._process.pid, signal.SIGKILL)
        servers[victim]._process.wait()
        time.sleep(dice.uniform(0.0, 3.0))
        servers[victim] = new_box(base, port) if victim == "box" else new_desk(base, port)
        servers[victim].__enter__()
        run = run if victim == "box" else None
        print(f"kill {kill} ({victim}): clip {wanted}, {dict(states)}", flush=True)
    delivered = {seed: json.loads(finish(servers["desk"], graph(seed))["report"]["text"][0])
                 for seed in range(1, wanted + 1)}
    found = predictions(servers["box"])
    for server in servers.values():
        server.stop()
    results = base / "desk" / "output" / "wan22" / "remote"
    seeds = Counter(one["request"]["seed"] for one in found)
    return {"kills": dict(killed), "clips": wanted, "predictions": len(found),
            "statuses": Counter(one["status"] for one in found),
            "lost": [seed for seed, report in delivered.items() if not (results / report["file"]).is_file()],
            "made twice": [seed for seed, count in seeds.items() if count > 1],
            "kills that met a job in state": dict(hit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("same", "kills"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=12.0, help="seconds between two kills, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        for name in ("box", "desk"):
            (base / name / "input").mkdir(parents=True)
        Image.fromarray(np.full((64, 96, 3), (90, 120, 150), np.uint8)).save(base / "desk" / "input" / "still.png")
        result = {"same": same, "kills": kills}[options.what](base, options)
        print(json.dumps(result, indent=1, default=str))
        if result.get("lost") or result.get("made twice"):
            raise SystemExit("a clip was lost, or made twice")


if __name__ == "__main__":
    main()
