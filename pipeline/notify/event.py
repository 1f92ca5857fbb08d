"""What a callback of ours says of a clip: small JSON in the form of Standard Webhooks (type, timestamp, data).

Links in it come without their query, which may hold a token; the link of the result, which is ours, aside.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from typing import Any

from ..remote.json_parts import number_part, part
from ..remote.origins import without_queries

DONE, FAILED = "clip.done", "clip.failed"
OURS = "Wan22"
"""How the pack's node types begin."""

Graph = dict[str, dict[str, Any]]
"""A workflow in API form: node id -> class_type and inputs."""


def new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def event_body(event_id: str, kind: str, now: float, data: dict[str, Any]) -> bytes:
    """The callback's body; kind is DONE or FAILED, now seconds since 1970."""
    stamp = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"id": event_id, "type": kind, "timestamp": stamp, "data": data}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def request_of(graph: Graph, node_id: str) -> list[dict[str, Any]]:
    """What was asked: the settings of this pack's nodes that a node's inputs come from, [{node, type, inputs}]."""
    found: list[str] = []
    waiting = [node_id]
    while waiting:
        inputs = graph.get(waiting.pop(), {}).get("inputs", {})
        before = [value[0] for value in inputs.values() if _is_link(value) and value[0] in graph]
        new = [name for name in dict.fromkeys(before) if name not in found]
        found += new
        waiting += new
    ours = [(name, graph[name]) for name in sorted(found) if str(graph[name].get("class_type")).startswith(OURS)]
    return [{"node": name, "type": node["class_type"],
             "inputs": without_queries({key: value for key, value in node.get("inputs", {}).items()
                                        if not _is_link(value)})} for name, node in ours]


def failure_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Why a run brought no clip, as its entry in ComfyUI's history tells ({} without one): message, cancelled, node."""
    messages = dict((entry.get("status") or {}).get("messages") or ())
    failed, stopped = messages.get("execution_error", {}), messages.get("execution_interrupted")
    if stopped is not None:
        return {"message": "The run was stopped.", "cancelled": True, "node": stopped.get("node_id"),
                "node_type": stopped.get("node_type")}
    return {"message": failed.get("exception_message") or "The run ended without a clip.", "cancelled": False,
            "node": failed.get("node_id"), "node_type": failed.get("node_type")}


def read_report(text: str) -> tuple[Any, Any]:
    """A remote node's report and its price, {usd, source}; the text itself and None when it is not one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return without_queries(text) or None, None
    price = part(found, "price")
    return without_queries(found), price if number_part(price, "usd") is not None else None


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
