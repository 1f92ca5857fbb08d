"""Every shared workflow has its twin in API format, and both say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).parent.parent / "workflows"


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda p: p.stem)
def test_canvas_and_api_agree(path: Path) -> None:
    canvas = json.loads(path.read_text("utf-8"))
    api = json.loads((WORKFLOWS / "api" / path.name).read_text("utf-8"))
    nodes = {str(node["id"]): node for node in canvas["nodes"]}
    assert {i: n["type"] for i, n in nodes.items()} == {i: n["class_type"] for i, n in api.items()}
    origins = {link[0]: [str(link[1]), link[2]] for link in canvas["links"]}
    for node_id, node in api.items():
        linked = {i["name"]: origins[i["link"]] for i in nodes[node_id].get("inputs", []) if i.get("link") is not None}
        assert linked == {k: v for k, v in node["inputs"].items() if isinstance(v, list)}
        for value in (v for v in node["inputs"].values() if not isinstance(v, list)):
            assert value in nodes[node_id]["widgets_values"], f"{node['class_type']}: {value!r}"


def test_pictures_of_the_workflows_are_there() -> None:
    for path in (WORKFLOWS / "api").glob("*.json"):
        for node in json.loads(path.read_text("utf-8")).values():
            if node["class_type"] == "LoadImage":
                assert (WORKFLOWS / "input" / node["inputs"]["image"]).is_file()
