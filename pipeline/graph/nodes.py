"""Read a workflow in ComfyUI's API form: links between nodes, typed values, and the nodes of this pack."""

from __future__ import annotations

from typing import Any

from ..http.errors import redact_links

Graph = dict[str, dict[str, Any]]
"""Node id -> {"class_type": ..., "inputs": {name: a typed value, or a link [node id, output]}}."""
PREFIX = "Wan22"
"""Beginning of the type of each node of this pack."""


def is_link(value: Any) -> bool:
    """Return True when an input's value is a link to another node's output, by ComfyUI's own rule (graph_utils.py)."""
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
            and isinstance(value[1], int | float))


def node_type(node: dict[str, Any]) -> str:
    """Return a node's type; "" when it has none."""
    return str(node.get("class_type") or "")


def is_ours(node: dict[str, Any]) -> bool:
    """Return True for a node of this pack."""
    return node_type(node).startswith(PREFIX)


def upstream(graph: Graph, node_id: str) -> list[str]:
    """Return the ids of all nodes that a node depends on; itself only in a graph that goes in circles."""
    found: dict[str, None] = {}
    waiting = _sources(graph, node_id)
    while waiting:
        name = waiting.pop()
        if name not in found and name in graph:
            found[name] = None
            waiting += _sources(graph, name)
    return list(found)


def _sources(graph: Graph, node_id: str) -> list[str]:
    return [value[0] for value in graph.get(node_id, {}).get("inputs", {}).values() if is_link(value)]


def typed_inputs(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node's inputs that are values, not links."""
    return {name: value for name, value in node.get("inputs", {}).items() if not is_link(value)}


def shown_inputs(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node's typed inputs, their links without what may be secret."""
    return redact_links(typed_inputs(node))
