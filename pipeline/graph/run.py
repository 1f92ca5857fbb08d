"""A run of a graph, as ComfyUI's queue and history hold it.

Forms: execution.py (PromptQueue), server.py (post_prompt) and comfy_execution/jobs.py of ComfyUI 0.30.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .nodes import Graph

SUCCESS, ERROR, INTERRUPTED = "execution_success", "execution_error", "execution_interrupted"
"""The message with which a run ends."""


@dataclass(frozen=True)
class GraphRun:
    """One entry of ComfyUI's queue."""

    prompt_id: str
    graph: Graph
    extra_data: Mapping[str, Any]
    """The data sent with the graph: create_time in milliseconds; from a canvas, its workflow."""
    outputs: tuple[str, ...] = ()
    """Ids of the nodes that are run for their own sake."""

    @property
    def created(self) -> float:
        """Seconds since 1970; 0 when not known."""
        return self.extra_data.get("create_time", 0) / 1000

    @property
    def workflow(self) -> dict[str, Any]:
        """{"workflow": as the canvas saved it} or, for a run without a canvas, {"graph": in API form}."""
        saved = (self.extra_data.get("extra_pnginfo") or {}).get("workflow")
        return {"workflow": saved} if saved else {"graph": self.graph}

    def takes(self, node_id: str, output: int) -> bool:
        """Return True when any node takes this output, and for a node that is not in the graph, because another one
        made it during the run and nobody can tell."""
        return node_id not in self.graph or any(
            value == [node_id, output] for node in self.graph.values() for value in node["inputs"].values())


def read_item(item: Sequence[Any]) -> GraphRun:
    """Return the run of a queue's item: (number, prompt id, graph, extra data, outputs, ...)."""
    return GraphRun(item[1], item[2], item[3] or {}, tuple(item[4]))


@dataclass(frozen=True)
class RunEnd:
    """The end of a run."""

    message: str = SUCCESS
    """SUCCESS, ERROR or INTERRUPTED."""
    began: float = 0.0
    """Seconds since 1970, as `ended`; 0 when not known."""
    ended: float = 0.0
    error: str = ""
    """The exception's message, for ERROR."""
    error_type: str = ""
    """The exception's class with its module, for ERROR."""
    node: str | None = None
    """Id of the node that failed or was stopped."""
    node_type: str | None = None


def read_end(entry: Mapping[str, Any]) -> RunEnd:
    """Return the end of a run from its entry in ComfyUI's history; {} is a run that left no trace."""
    messages = dict((entry.get("status") or {}).get("messages") or ())
    message = next((name for name in (INTERRUPTED, ERROR) if name in messages), SUCCESS)
    last = messages.get(message, {})
    return RunEnd(message, messages.get("execution_start", {}).get("timestamp", 0) / 1000,
                  last.get("timestamp", 0) / 1000, last.get("exception_message", "").strip(),
                  last.get("exception_type", ""), last.get("node_id"), last.get("node_type"))
