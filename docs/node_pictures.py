"""Pictures of every node on the real canvas, for its help page, and of the demo workflow, for the README.

    .venv/bin/python docs/node_pictures.py

Needs what `python3 dev.py test` prepares, and Chromium (on Debian: apt install chromium). Takes a minute: the demo
workflow is run, so that its nodes are seen with a clip.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

from devtools.environment import find_comfyui  # noqa: E402
from devtools.fetch import COMFYUI_VERSION  # noqa: E402
from devtools.paths import CACHE, SAMPLE_PICTURES  # noqa: E402
from devtools.server import ComfyServer  # noqa: E402
from tests.support.canvas import CHROMIUM, FLAGS, Canvas  # noqa: E402

PICTURES = ROOT / "web" / "docs" / "pictures"
WORKFLOW_PICTURE = ROOT / "docs" / "canvas.webp"
DEMO = ROOT / "workflows" / "camera-path.json"
LATENT = "wan22/latents/cat-high-noise_00001_.latent"
"""In the output folder, for Load Latent to have one to show."""
NOT_IN_DEMO: dict[str, dict[str, Any]] = {
    "Wan22Attention": {},
    "Wan22Lora": {"source": "wan2.2_i2v_demo_drain_colours_high_noise.safetensors",
                  "source_low": "wan2.2_i2v_demo_drain_colours_low_noise.safetensors"},
    "Wan22MoveObject": {},
    "Wan22ImageFromURL": {"url": "https://example.com/cat.jpg"},
    "Wan22BridgeSampler": {"num_inference_steps": 20, "guidance_scale": 3.5},
    "Wan22SaveLatent": {"name": "cat-high-noise"},
    "Wan22LoadLatent": {},
    "Wan22DecodeToMP4": {"filename_prefix": "wan22/cat"},
    "Wan22Segment": {"prompt": "the cat turns its head and yawns", "num_frames": 81},
    "Wan22LongClip": {"num_inference_steps": 20, "guidance_scale": 3.5, "filename_prefix": "wan22/long"},
    "Wan22ExtendClip": {"num_frames": 81},
    "Wan22JoinClips": {},
    "Wan22CheckClip": {},
    "Wan22Retry": {},
    "Wan22ClipGrid": {"labels": "seed 1\nseed 2\nseed 3\nseed 4"},
    "Wan22RemoteImageToVideo": {"prompt": "the cat turns its head and yawns", "max_cost": 0.5},
    "Wan22RemoteFallback": {"provider": "fal.ai"},
    "Wan22ResumeRemoteClip": {"job": "3f9c1a7e"},
    "Wan22Notify": {"callback_url": "https://example.com/clips"},
}
"""Nodes that the demo workflow has not -> values that show what they are for."""
TIMEOUT = 1_200_000
"""Milliseconds for anything: pictures may be taken on a machine that has other work."""
WIDTH, MARGIN, PLACE = 420, 12, (440, 120)
"""Of a node, around it, and where it is put in the window, clear of the page's own panels; in pixels."""
QUIET = {"Comfy_NodeBadge_NodeSourceBadgeMode": "None", "Comfy_Minimap_Visible": False, "Comfy_Graph_CanvasInfo": False}
"""Settings without which the page shows more than the nodes."""

ADD = """async ([kind, values, width]) => {
    const node = window.LiteGraph.createNode(kind);
    window.app.graph.add(node);
    for (const [name, value] of Object.entries(values)) {
        const widget = node.widgets.find(widget => widget.name === name);
        widget.value = value;
        widget.callback?.(value, window.app.canvas, node);
    }
    await new Promise(done => setTimeout(done, 1500));
    const [least, height] = node.computeSize();
    node.setSize([Math.max(least, width), height]);
    return node.id;
}"""
BOX = """node => [node.pos[0], node.pos[1] - window.LiteGraph.NODE_TITLE_HEIGHT, node.size[0],
    node.size[1] + window.LiteGraph.NODE_TITLE_HEIGHT]"""
"""Left, top, width and height of a node with its title; its own getBounding() is that of the last frame drawn."""
SHOW = """([id, [x, y]]) => {
    const canvas = window.app.canvas, node = window.app.graph.getNodeById(id);
    const [left, top, width, height] = (%BOX%)(node);
    canvas.deselectAll();
    node.title = node.constructor.title;
    canvas.ds.scale = 1;
    canvas.ds.offset = [x - left, y - top];
    canvas.setDirty(true, true);
    return [width, height];
}""".replace("%BOX%", BOX)
"""Put a node at a place of the window under its own name, and tell its size."""
ALL = """([width, height, left, top]) => {
    const canvas = window.app.canvas, nodes = window.app.graph.nodes.map(%BOX%);
    const x = Math.min(...nodes.map(box => box[0])), y = Math.min(...nodes.map(box => box[1]));
    const right = Math.max(...nodes.map(box => box[0] + box[2])), end = Math.max(...nodes.map(box => box[1] + box[3]));
    canvas.deselectAll();
    canvas.ds.scale = Math.min(width / (right - x), height / (end - y), 1);
    canvas.ds.offset = [left / canvas.ds.scale - x, top / canvas.ds.scale - y];
    canvas.setDirty(true, true);
    return [(right - x) * canvas.ds.scale, (end - y) * canvas.ds.scale];
}""".replace("%BOX%", BOX)
"""Make the whole graph fit into a part of the window, and tell its size there."""
CLIP_IS_THERE = "() => [...document.querySelectorAll('video')].some(video => video.readyState >= 2)"
STOP_CLIP = """() => {
    for (const video of document.querySelectorAll('video')) {
        video.pause();
        if (video.duration) video.currentTime = video.duration / 2;
    }
}"""
EMPTY = {"version": 0.4, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}}


def shoot(canvas: Canvas, size: list[float], path: Path, place: tuple[float, float] = PLACE) -> None:
    """Keep what is at a place of the window as WebP."""
    canvas.page.wait_for_timeout(1000)
    box = {"x": place[0] - MARGIN, "y": place[1] - MARGIN, "width": size[0] + 2 * MARGIN,
           "height": size[1] + 2 * MARGIN}
    image = Image.open(io.BytesIO(canvas.page.screenshot(clip=box))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=80, method=6)
    print(f"{path.relative_to(ROOT)}  {image.width}x{image.height}  {path.stat().st_size / 1000:.0f} kB", flush=True)


def picture_all(canvas: Canvas) -> None:
    """The demo workflow after a run, its nodes, and those that it has not."""
    canvas.page.set_viewport_size({"width": 1700, "height": 1200})
    canvas.load(json.loads(DEMO.read_text("utf-8")))
    canvas.run()
    canvas.page.wait_for_function(CLIP_IS_THERE)
    canvas.page.wait_for_timeout(3000)  # the node grows to hold it
    canvas.page.evaluate(STOP_CLIP)
    place = (70, 200)
    shoot(canvas, canvas.page.evaluate(ALL, [1600, 900, *place]), WORKFLOW_PICTURE, place)
    nodes = canvas.page.evaluate("() => window.app.graph.nodes.map(node => [node.id, node.type])")
    for number, kind in nodes:
        if kind.startswith("Wan22"):
            shoot(canvas, canvas.page.evaluate(SHOW, [number, PLACE]), PICTURES / f"{kind}.webp")
    for kind, values in NOT_IN_DEMO.items():
        canvas.load(EMPTY)
        number = canvas.page.evaluate(ADD, [kind, values, WIDTH])
        shoot(canvas, canvas.page.evaluate(SHOW, [number, PLACE]), PICTURES / f"{kind}.webp")


def main() -> None:
    comfyui = find_comfyui(ROOT, os.environ) or CACHE / f"ComfyUI-{COMFYUI_VERSION}"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        shutil.copytree(SAMPLE_PICTURES, base / "input")
        latent = base / "output" / LATENT
        latent.parent.mkdir(parents=True)
        latent.touch()
        with ComfyServer(comfyui, base, base / "log") as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            canvas = Canvas(browser, server, **QUIET)
            canvas.page.set_default_timeout(TIMEOUT)
            picture_all(canvas)
            browser.close()
            if canvas.errors:
                sys.exit("\n".join(canvas.errors))


if __name__ == "__main__":
    main()
