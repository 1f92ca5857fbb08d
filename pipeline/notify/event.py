"""The content of a callback: small JSON in the form of Standard Webhooks (type, timestamp, data).

Links in it are redacted, because their queries may hold a token; all but the link of the result, which is ours.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timezone
from typing import Any

from ..graph.nodes import Graph, is_ours, node_type, shown_inputs, upstream
from ..graph.run import INTERRUPTED, RunEnd
from ..http.errors import redact_links
from ..remote.json_parts import number_part, part

DONE, FAILED = "clip.done", "clip.failed"


def new_id() -> str:
    """Return a message id, the same for every try of a message."""
    return f"msg_{uuid.uuid4().hex}"


def event_body(event_id: str, kind: str, now: float, data: dict[str, Any]) -> bytes:
    """Return the body of a callback; kind: DONE or FAILED. now: seconds since 1970."""
    stamp = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"id": event_id, "type": kind, "timestamp": stamp, "data": data}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def request_data(graph: Graph, node_id: str) -> list[dict[str, Any]]:
    """Return the settings of the pack's nodes that a node depends on, [{"node", "type", "inputs"}], by node id."""
    return [{"node": name, "type": node_type(graph[name]), "inputs": shown_inputs(graph[name])}
            for name in sorted(upstream(graph, node_id)) if is_ours(graph[name])]


def failure_data(end: RunEnd) -> dict[str, Any]:
    """Return why a run brought no clip: message, cancelled, and the node that failed or was stopped."""
    cancelled = end.message == INTERRUPTED
    message = "The run was stopped." if cancelled else end.error or "The run ended without a clip."
    return {"message": message, "cancelled": cancelled, "node": end.node, "node_type": end.node_type}


def read_report(text: str) -> tuple[Any, Any]:
    """Return a remote node's report and its price, {"usd", "source"}; the text itself and None when it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return redact_links(text) or None, None
    price = part(found, "price")
    return redact_links(found), price if number_part(price, "usd") is not None else None
