"""Make the API-format twin of every shipped workflow from its canvas file, by ComfyUI's own canvas in Chromium.

    python3 dev.py twins
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .environment import local_comfyui
from .paths import CACHE, ROOT
from .server import ComfyServer
from .terminal import say

if TYPE_CHECKING:
    from tests.support.canvas import Canvas

WORKFLOWS = ROOT / "workflows"
TWINS = WORKFLOWS / "api"
ADDED_LATER = {"SaveVideo": ("format.codec",)}
"""Node -> inputs that a newer canvas sends beside the older ones of the same values: `codec` (ComfyUI 0.33,
comfy_extras/nodes_video.py). A twin is for both, and goes without."""


def canvas_files() -> list[Path]:
    """Return the shipped workflows in canvas format."""
    return sorted(WORKFLOWS.glob("*.json"))


def twin_of(canvas: Canvas, path: Path) -> str:
    """Return the text of the twin of a canvas file: what Run sends, an input a line."""
    canvas.load(json.loads(path.read_text("utf-8")))
    return text_of(canvas.prompt())


def text_of(graph: dict[str, dict[str, Any]]) -> str:
    """Return a graph in API format as JSON that is easy to read and to compare: nodes by number, an input a line."""
    nodes = []
    for node_id in sorted(graph, key=int):
        node = graph[node_id]
        inputs = ",\n".join(f"      {_json(key)}: {_json(value)}" for key, value in node["inputs"].items()
                             if key not in ADDED_LATER.get(node["class_type"], ()))
        nodes.append(f'  {_json(node_id)}: {{\n    "class_type": {_json(node["class_type"])},\n'
                     f'    "inputs": {{\n{inputs}\n    }},\n    "_meta": {_json(node["_meta"])}\n  }}')
    return "{\n" + ",\n".join(nodes) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    from playwright.sync_api import sync_playwright

    from tests.support.canvas import CHROMIUM, FLAGS, Canvas

    if CHROMIUM is None:
        sys.exit("There is no Chromium here (on Debian: apt install chromium).")
    with (
        tempfile.TemporaryDirectory(prefix="wan22-", ignore_cleanup_errors=True) as base,
        ComfyServer(local_comfyui(), Path(base), CACHE / "twins.log") as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        canvas = Canvas(browser, server)
        for path in canvas_files():
            (TWINS / path.name).write_text(twin_of(canvas, path), "utf-8")
            say(str((TWINS / path.name).relative_to(ROOT)))
        browser.close()


if __name__ == "__main__":
    main()
