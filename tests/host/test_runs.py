"""The running graph, in ComfyUI's own classes: nodes that others made during the run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from pipeline.video.provenance import ai_generated, request_of
from tests.support.comfy_in_process import import_comfyui

GRAPH = {
    "load": {"class_type": "Wan22Load", "inputs": {"model_source": "a.gguf"}},
    "decode": {"class_type": "Wan22Decode", "inputs": {"model": ["load", 0], "loop": ["start", 0]}},
    "save": {"class_type": "Wan22SaveMP4", "inputs": {"images": ["decode", 0], "fps": 16.0}},
    "start": {"class_type": "StartLoop", "inputs": {}},
    "end": {"class_type": "EndLoop", "inputs": {"flow": ["start", 0], "result": ["save", 0]}},
}
COPIES = {"end.0.0.save": ("end", "save"), "end.0.0.save.1": ("end.0.0.save", "end.0.0.save"),
          "end.0.0.other": ("end", "elsewhere")}
"""Nodes made during the run: what made them, and what they are shown as."""


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ComfyUI's state while the loop's second round runs. Its graph's module imports its `nodes`, for other uses."""
    import_comfyui()
    monkeypatch.setitem(sys.modules, "nodes", ModuleType("nodes"))
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state

    dynamic = DynamicPrompt(GRAPH)
    for node_id, (parent, display) in COPIES.items():
        dynamic.add_ephemeral_node(node_id, GRAPH["save"], parent, display)
    reset_progress_state("run", dynamic)
    yield
    reset_progress_state("", DynamicPrompt({}))


@pytest.mark.parametrize("node_id, sent", [("save", "save"), ("end.0.0.save", "save"), ("end.0.0.save.1", "save"),
                                           ("end.0.0.other", "end"), ("unknown", "unknown"), ("", "")])
def test_the_sent_node_that_a_node_stands_for(running: None, node_id: str, sent: str) -> None:
    from pipeline.host.runs import sent_node

    assert sent_node(node_id) == sent


@pytest.mark.parametrize("node_id", COPIES)
def test_a_copys_file_tells_how_it_was_made(running: None, node_id: str) -> None:
    from pipeline.host.runs import sent_node

    assert request_of(GRAPH, node_id) != request_of(GRAPH, "save")
    assert "Wan22Load" in str(request_of(GRAPH, sent_node(node_id)))
    assert ai_generated(GRAPH, sent_node(node_id)) == ai_generated(GRAPH, "save")
