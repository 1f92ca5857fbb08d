"""Every shipped workflow: its picture, its twin in API format, and what ComfyUI needs to run it or to ask for models.

That a twin is exactly what Run would send is compared in Chromium (tests/web/test_workflows.py).
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from devtools.paths import ROOT, SAMPLE_PICTURES
from devtools.thumbnails import CLIPS
from devtools.twins import TWINS, canvas_files
from tests.support.comfy_client import ComfyClient

FILES = canvas_files()
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))
NOTE = "MarkdownNote"
FOLDERS = {"diffusion_models", "text_encoders", "vae"}
TITLE = 30
"""Height of a node's title bar, above its `pos`."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))


def nodes_of(path: Path) -> list[dict[str, Any]]:
    canvas = read(path)
    return canvas["nodes"] + [node for graph in canvas.get("definitions", {}).get("subgraphs", [])
                              for node in graph["nodes"]]


workflows = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def test_each_has_its_twin_and_its_picture() -> None:
    names = {path.stem for path in FILES}
    assert {path.stem for path in TWINS.iterdir()} == names == set(CLIPS)
    for path in FILES:
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.size == (384, 384)


def test_comfyui_lists_them_and_not_the_twins(comfy: ComfyClient) -> None:
    assert sorted(comfy.get("/workflow_templates")[ROOT.name]) == sorted(path.stem for path in FILES)
    assert {path.stem for path in BLUEPRINTS} <= {entry["name"] for entry in comfy.get("/global_subgraphs").values()}


@workflows
def test_canvas_and_twin_say_the_same(path: Path) -> None:
    canvas, twin = read(path), read(TWINS / path.name)
    nodes = {str(node["id"]): node for node in canvas["nodes"] if node["type"] != NOTE}
    assert {i: n["type"] for i, n in nodes.items()} == {i: n["class_type"] for i, n in twin.items()}
    origins = {link[0]: [str(link[1]), link[2]] for link in canvas["links"]}
    for node_id, node in twin.items():
        linked = {i["name"]: origins[i["link"]] for i in nodes[node_id].get("inputs", []) if i.get("link") is not None}
        assert linked == {k: v for k, v in node["inputs"].items() if isinstance(v, list)}
        values = [value for value in node["inputs"].values() if not isinstance(value, list)]
        kept = iter(nodes[node_id].get("widgets_values", []))
        assert all(value in kept for value in values), f"{node['class_type']}: {values}"  # in this order


@workflows
def test_a_twin_fits_the_nodes(path: Path, comfy: ComfyClient) -> None:
    for node in read(TWINS / path.name).values():
        known = comfy.get(f"/object_info/{node['class_type']}")[node["class_type"]]["input"]
        names = {name.partition(".")[0] for name in node["inputs"]}
        required = {name for name, spec in known["required"].items() if spec[0] != "IMAGEUPLOAD"}
        assert required <= names <= set(known["required"]) | set(known.get("optional", {})), node["class_type"]


@workflows
def test_their_pictures_are_in_the_input_folder(path: Path, comfy: ComfyClient) -> None:
    for node in read(TWINS / path.name).values():
        if node["class_type"] == "LoadImage":
            name = node["inputs"]["image"]
            assert (comfy.server.base / "input" / name).read_bytes() == (SAMPLE_PICTURES / name).read_bytes()


@pytest.mark.parametrize("path", [*FILES, *BLUEPRINTS], ids=lambda p: p.stem)
def test_comfyui_can_offer_every_model_that_may_be_missing(path: Path) -> None:
    """The canvas looks a file up by name in `properties.models` of the node whose list lacks it."""
    for node in nodes_of(path):
        if "Loader" not in node["type"] and node["type"] != "Wan22Load":
            continue
        named = {value for value in node["widgets_values"] if str(value).endswith(".safetensors")}
        models = node["properties"].get("models", [])
        assert {model["name"] for model in models} == named
        for model in models:
            assert model["url"].startswith("https://huggingface.co/Comfy-Org/Wan_2.")
            assert model["url"].endswith(f"/resolve/main/split_files/{model['directory']}/{model['name']}")
            assert model["directory"] in FOLDERS


@workflows
def test_nothing_lies_on_anything_else(path: Path) -> None:
    canvas = read(path)
    boxes = {node["title"] if "title" in node else node["type"]: (
        node["pos"][0], node["pos"][1] - TITLE, node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1])
        for node in canvas["nodes"]}
    assert len(boxes) == len(canvas["nodes"]), "two nodes of one title"
    for (name, a), (other, b) in combinations(boxes.items(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{name} and {other}"
    areas = [(x, y, x + w, y + h) for x, y, w, h in (group["bounding"] for group in canvas["groups"])]
    for node, box in zip(canvas["nodes"], boxes.values(), strict=True):
        around = [a for a in areas if a[0] <= box[0] and a[1] <= box[1] and a[2] >= box[2] and a[3] >= box[3]]
        assert len(around) == (node["type"] != NOTE), node.get("title", node["type"])
    assert "ds" not in canvas["extra"], "the canvas would open where it was last looked at"
